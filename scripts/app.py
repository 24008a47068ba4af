"""Open a page in the browser to try edits on; what else they change is measured on sentences of the data.

python scripts/app.py --model_name_or_path runs/main/editable --regression_data runs/main/data
"""

from hf_editable.cli.commands.open_page import main


if __name__ == "__main__":
    raise SystemExit(main())
