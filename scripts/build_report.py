r"""All results of a folder as one Markdown report and one HTML page that needs nothing else.

python scripts/build_report.py --results_dir runs/main/results --output_dir runs/main/report
"""

from hf_editable.cli.commands.build_report import main


if __name__ == "__main__":
    raise SystemExit(main())
