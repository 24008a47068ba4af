#!/usr/bin/env bash
# The main job from data to measured edits, all set up in .venv: train a translation model, mine edits from it, make it
# editable, compare both on the same edits, and correct one mistake.
#
#   scripts/run_main.sh                                              on the built-in corpus, in minutes on two cores
#   scripts/run_main.sh --source iwslt14 --archive de-en.tgz         IWSLT14 De-En at the paper's size; wants a GPU
#   scripts/run_main.sh --source files --train_files corpus.de.gz corpus.en.gz                     your own data
#
# Arguments are those of `hf-editable prepare`. RUN names the folder of the results, runs/main by default. A run that
# was interrupted goes on when it is started again with the same arguments.
source "$(dirname "$0")/environment.sh"
run=${RUN:-runs/main}

mkdir -p "$run"
if [ -f "$run/arguments" ] && [ "$(cat "$run/arguments")" != "$*" ]; then
    echo "error: $run holds a run with the arguments '$(cat "$run/arguments")'. Name another folder in RUN." >&2
    exit 2
fi
echo "$*" > "$run/arguments"

if [ $# -eq 0 ]; then
    data=(--source grammar --num_train 16000 --num_test 200 --vocab_size 1500 --lowercase)
    sizes=(--d_model 128 --ffn_dim 256 --num_layers 2 --dropout 0.1 --max_length 64)
    baseline=(--learning_rate 2e-3 --lr_scheduler_type linear --warmup_steps 150 --max_steps 1000
        --max_tokens_per_batch 1024)
    editable=(--learning_rate 2e-4 --lr_scheduler_type linear --warmup_steps 20 --max_steps 250
        --max_tokens_per_batch 1024 --edits_per_step 2 --label_smoothing_factor 0.1 --c_edit 3 --c_loc 8
        --edit_learning_rate 2e-3 --learn_coefficients false)
    # A model as small as this needs steps of that size; the longest reference has 25 tokens.
    mined=500 edits=30 evaluation=(--learning_rate 2e-3 --max_new_tokens 32)
else
    data=("$@") sizes=()
    baseline=(--num_train_epochs 50)
    editable=(--learning_rate 1e-4 --warmup_steps 200 --max_steps 20000 --max_tokens_per_batch 4096 --edits_per_step 2
        --c_edit 1 --c_loc 10 --edit_learning_rate 1e-3 --learn_coefficients false)
    mined=20000 edits=1000 evaluation=(--learning_rate 1e-3)
fi

step() { echo; echo "== $1"; }

# train COMMAND NAME ARGUMENTS...: unless it is done; from the last checkpoint, if there is one.
train() {
    local command=$1 output="$run/$2" last
    [ ! -f "$output/train_results.json" ] || return 0
    mkdir -p "$output"
    last=$(find "$output" -maxdepth 1 -name "checkpoint-*" | sort -V | tail -n 1)
    # All that accelerate would else warn that it takes by default.
    accelerate launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no \
        -m hf_editable "$command" --data_dir "$run/data" --output_dir "$output" --save_total_limit 1 ${last:+--resume_from_checkpoint "$last"} "${@:3}"
}

step "Data"
[ -d "$run/data" ] || hf-editable prepare "${data[@]}" --output_dir "$run/data"

step "Training the baseline"
train train baseline --logging_steps 100 "${sizes[@]}" "${baseline[@]}"

step "Mining edits from it"
for split in train test; do
    [ $split = train ] && count=$mined || count=$edits
    hf-editable mine --model_name_or_path "$run/baseline" --data_dir "$run/data" --split $split \
        --num_edits "$count" --output_dir "$run/edits_$split"
done

step "Training it to be editable"
train make-editable editable --logging_steps 25 --model_name_or_path "$run/baseline" \
    --edits_dir "$run/edits_train" --dropout 0 "${editable[@]}"

step "Measuring single edits of both"
hf-editable evaluate --model_name_or_path "$run/baseline" "$run/editable" --names baseline editable \
    --edits_dir "$run/edits_test" --data_dir "$run/data" --num_edits "$edits" "${evaluation[@]}" \
    --output_dir "$run/results"

step "Correcting one mistake"
hf-editable edit --model_name_or_path "$run/editable" --data_dir "$run/data" \
    --output_dir "$run/patch"
