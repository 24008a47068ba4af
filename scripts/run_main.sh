#!/usr/bin/env bash
# The main job from data to measured edits, all set up in .venv: train a translation model, mine edits from it, make it
# editable, compare both on the same edits, and correct one mistake.
#
#   scripts/run_main.sh                                              on the built-in corpus, in minutes on two cores
#   scripts/run_main.sh --source iwslt14 --archive de-en.tgz         IWSLT14 De-En at the paper's size; wants a GPU
#   scripts/run_main.sh --source files --train_files corpus.de.gz corpus.en.gz                     your own data
#
# Arguments are those of scripts/prepare_data.py. RUN names the folder of the results, runs/main by default. What is
# finished there is not done again, so an interrupted run goes on.
source "$(dirname "$0")/environment.sh"
run=${RUN:-runs/main}

if [ $# -eq 0 ]; then
    data=(--source grammar --num_train 12000 --num_test 200 --vocab_size 2000)
    sizes=(--d_model 128 --ffn_dim 256 --num_layers 2 --dropout 0.1 --max_length 64)
    baseline=(--learning_rate 2e-3 --warmup_steps 200 --num_train_epochs 4 --max_tokens_per_batch 2048)
    editable=(--learning_rate 3e-4 --warmup_steps 20 --max_steps 200 --max_tokens_per_batch 1024)
    mined=400 edits=30
else
    data=("$@") sizes=()
    baseline=(--num_train_epochs 50)
    editable=(--learning_rate 1e-4 --warmup_steps 200 --max_steps 20000 --max_tokens_per_batch 4096)
    mined=20000 edits=1000
fi

step() { echo; echo "== $1"; }
unless() { [ -e "$1" ] || "${@:2}"; }  # a command, unless its result is there

step "Data"
unless "$run/data" python scripts/prepare_data.py "${data[@]}" --output_dir "$run/data"

step "Training the baseline"
unless "$run/baseline/train_results.json" accelerate launch --num_processes 1 scripts/train_baseline.py \
    --data_dir "$run/data" --output_dir "$run/baseline" "${sizes[@]}" "${baseline[@]}" \
    --save_total_limit 1 --logging_steps 100

step "Mining edits from it"
for split in train test; do
    count=$mined; [ $split = train ] || count=$edits
    python scripts/mine_edits.py --model_name_or_path "$run/baseline" --data_dir "$run/data" --split $split \
        --num_edits "$count" --output_dir "$run/edits_$split"
done

step "Training it to be editable"
unless "$run/editable/train_results.json" accelerate launch --num_processes 1 scripts/train_editable.py \
    --model_name_or_path "$run/baseline" --data_dir "$run/data" --edits_dir "$run/edits_train" \
    --output_dir "$run/editable" --dropout 0 --c_edit 1 --c_loc 10 "${editable[@]}" \
    --save_total_limit 1 --logging_steps 20

step "Measuring single edits of both"
python scripts/evaluate_edits.py --model_name_or_path "$run/baseline" "$run/editable" --names baseline editable \
    --edits_dir "$run/edits_test" --data_dir "$run/data" --num_edits "$edits" --output_dir "$run/results"

step "Correcting one mistake"
python scripts/edit_translation.py --model_name_or_path "$run/editable" --data_dir "$run/data" \
    --output_dir "$run/patch"
