"""A tiny random model of every text-to-text encoder-decoder family of transformers."""

import functools
from collections.abc import Callable

import torch
from transformers import (
    AutoModelForSeq2SeqLM,
    BartConfig,
    BertConfig,
    BigBirdPegasusConfig,
    BlenderbotConfig,
    BlenderbotSmallConfig,
    EncoderDecoderConfig,
    FSMTConfig,
    LEDConfig,
    LongT5Config,
    M2M100Config,
    MBartConfig,
    MT5Config,
    MvpConfig,
    NllbMoeConfig,
    PegasusConfig,
    PegasusXConfig,
    PLBartConfig,
    PreTrainedConfig,
    ProphetNetConfig,
    SeamlessM4TConfig,
    SeamlessM4Tv2Config,
    SwitchTransformersConfig,
    T5Config,
    T5Gemma2Config,
    T5GemmaConfig,
    UMT5Config,
)

from conftest import marian_config


VOCABULARY = 40
TOKENS = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
BART_LIKE = {
    "vocab_size": VOCABULARY,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "max_position_embeddings": 32,
    "init_std": 0.3,
    "forced_eos_token_id": None,
    "encoder_layerdrop": 0.0,
    "decoder_layerdrop": 0.0,
    **TOKENS,
}
T5_LIKE = {
    "vocab_size": VOCABULARY,
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 32,
    "num_layers": 3,  # generate looks at these for the decoder's cache
    "num_decoder_layers": 3,
    "num_heads": 2,
    **TOKENS,
}
BERT_LIKE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
    "initializer_range": 0.3,
    "pad_token_id": 1,
}
GEMMA_LIKE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "sliding_window": 8,
    "max_position_embeddings": 64,
    **{name: TOKENS[name] for name in ("bos_token_id", "pad_token_id", "eos_token_id")},
}
SEAMLESS_LIKE = {
    **{name: value for name, value in BART_LIKE.items() if name not in ("d_model", "init_std")},
    "hidden_size": 16,
    # The speech parts, which text-to-text models do not have, but whose sizes must be consistent.
    "speech_encoder_layers": 1,
    "speech_encoder_attention_heads": 2,
    "speech_encoder_intermediate_size": 32,
}


def _encoder_decoder() -> PreTrainedConfig:
    config = EncoderDecoderConfig.from_encoder_decoder_configs(
        BertConfig(**BERT_LIKE), BertConfig(**BERT_LIKE, is_decoder=True, add_cross_attention=True)
    )
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 2, 1, 2
    return config


def _t5gemma() -> PreTrainedConfig:
    return T5GemmaConfig(encoder=GEMMA_LIKE, decoder=GEMMA_LIKE, vocab_size=VOCABULARY, **TOKENS)


def _t5gemma2() -> PreTrainedConfig:
    vision = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "image_size": 28, "patch_size": 14,
    }  # fmt: skip
    encoder = {"text_config": GEMMA_LIKE, "vision_config": vision, "image_token_index": 39, "boi_token_index": 37,
               "eoi_token_index": 38}  # fmt: skip
    return T5Gemma2Config(encoder=encoder, decoder=GEMMA_LIKE, image_token_index=39, **TOKENS)


CONFIGS: dict[str, Callable[[], PreTrainedConfig]] = {
    "marian": functools.partial(marian_config, VOCABULARY, decoder_layers=3),
    "m2m_100": functools.partial(M2M100Config, **BART_LIKE),
    "mbart": functools.partial(MBartConfig, **BART_LIKE),
    "bart": functools.partial(BartConfig, **BART_LIKE),
    "t5": functools.partial(T5Config, **T5_LIKE),
    "mt5": functools.partial(MT5Config, **T5_LIKE, tie_word_embeddings=False),
    "umt5": functools.partial(UMT5Config, **T5_LIKE),
    "longt5": functools.partial(LongT5Config, **T5_LIKE, local_radius=3),
    "longt5-tglobal": functools.partial(
        LongT5Config, **T5_LIKE, local_radius=3, global_block_size=4, encoder_attention_type="transient-global"
    ),
    "pegasus": functools.partial(PegasusConfig, **BART_LIKE),
    "pegasus_x": functools.partial(PegasusXConfig, **BART_LIKE, block_size=4, num_global_tokens=2),
    "bigbird_pegasus": functools.partial(BigBirdPegasusConfig, **BART_LIKE, block_size=2, num_random_blocks=1),
    "led": functools.partial(
        LEDConfig, **{name: value for name, value in BART_LIKE.items() if name != "max_position_embeddings"},
        attention_window=4, max_encoder_position_embeddings=32, max_decoder_position_embeddings=32,
    ),
    "blenderbot": functools.partial(BlenderbotConfig, **BART_LIKE),
    "blenderbot-small": functools.partial(BlenderbotSmallConfig, **BART_LIKE),
    "fsmt": functools.partial(
        FSMTConfig, langs=["de", "en"], src_vocab_size=VOCABULARY, tgt_vocab_size=VOCABULARY,
        **{name: value for name, value in BART_LIKE.items() if name != "vocab_size"},
    ),
    "mvp": functools.partial(MvpConfig, **BART_LIKE),
    "plbart": functools.partial(PLBartConfig, **BART_LIKE),
    "prophetnet": functools.partial(
        ProphetNetConfig, vocab_size=VOCABULARY, hidden_size=16, encoder_ffn_dim=32, num_encoder_layers=3,
        num_encoder_attention_heads=2, decoder_ffn_dim=32, num_decoder_layers=3, num_decoder_attention_heads=2,
        max_position_embeddings=32, ngram=2, init_std=0.3, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=2,
    ),
    "nllb-moe": functools.partial(
        NllbMoeConfig, **BART_LIKE, num_experts=4, encoder_sparse_step=2, decoder_sparse_step=3, expert_capacity=64,
        moe_token_dropout=0.0,
    ),
    "switch_transformers": functools.partial(
        SwitchTransformersConfig, **T5_LIKE, num_experts=4, expert_capacity=64, num_sparse_encoder_layers=1,
        num_sparse_decoder_layers=1,
        router_jitter_noise=0.0,
    ),
    "t5gemma": _t5gemma,
    "t5gemma2": _t5gemma2,
    "seamless_m4t": functools.partial(SeamlessM4TConfig, **SEAMLESS_LIKE),
    "seamless_m4t_v2": functools.partial(SeamlessM4Tv2Config, **SEAMLESS_LIKE),
    "encoder-decoder": _encoder_decoder,
}  # fmt: skip

FAMILIES = list(CONFIGS)


def build(family: str) -> torch.nn.Module:
    """A model of the family with random weights, in evaluation mode."""
    torch.manual_seed(0)
    config = CONFIGS[family]()
    return AutoModelForSeq2SeqLM.from_config(config).eval()
