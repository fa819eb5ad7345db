"""A tiny config of every architecture that transformers has a sequence classifier for.

Sizes go by the names that configs give them; what a single architecture wants beside is a row of
OWN.
"""

from typing import Any

from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)

ARCHITECTURES = tuple(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES)
# those that write text too, and others that only do
UNMADE = ("qwen3_5", "reformer", "rembert", "roc_bert")  # as language models, from a tiny config
LANGUAGE = (
    *(n for n in ARCHITECTURES if n in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and n not in UNMADE),
    "cohere", "cohere2", "granite", "mamba", "olmoe", "rwkv",
)  # fmt: skip
POSITIONS = 64

WIDTHS = {
    "hidden_size": 32, "d_model": 32, "n_embd": 32, "dim": 32, "emb_dim": 32, "embedding_size": 32,
    "intermediate_size": 64, "d_ff": 64, "ffn_dim": 64, "hidden_dim": 64, "d_inner": 64, "dff": 64,
    "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "ffn_hidden_size": 64, "feed_forward_size": 64,
    "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32, "d_kv": 16, "d_head": 16,
    "head_dim": 16, "kv_channels": 16, "word_embed_proj_dim": 32, "pooler_hidden_size": 32,
    "kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
    "v_head_dim": 16, "attention_head_size": 16, "rotary_dim": 8, "query_pre_attn_scalar": 16,
}  # fmt: skip
COUNTS = {
    "num_hidden_layers": 2, "n_layer": 2, "n_layers": 2, "num_layers": 2, "encoder_layers": 2,
    "decoder_layers": 2, "num_decoder_layers": 2, "num_attention_heads": 2, "n_head": 2,
    "n_heads": 2, "num_heads": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "num_key_value_heads": 2, "num_kv_heads": 2, "num_experts": 4, "num_local_experts": 4,
    "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "n_group": 1,
    "topk_group": 1,
}  # fmt: skip
LENGTHS = {"max_position_embeddings": POSITIONS, "n_positions": POSITIONS, "max_seq_len": POSITIONS}
SPREAD = {"initializer_range": 0.2, "init_std": 0.2}  # so that texts differ
VISION = {"image_size": 16, "patch_size": 8, "num_channels": 3}
LINEAR = ["linear_attention", "full_attention"]  # one layer of each
OWN: dict[str, dict[str, Any]] = {
    "axk1": {"qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "head_dim": 8},
    "big_bird": {"block_size": 8, "attention_type": "original_full"},
    "bigbird_pegasus": {"block_size": 8, "attention_type": "original_full"},
    "canine": {
        "max_position_embeddings": 256, "local_transformer_stride": 16, "num_hash_buckets": 64,
    },
    "cohere_compass_text": {
        "layer_types": ["full_attention", "sliding_attention"],
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 10000.0}
            for kind in ("full_attention", "sliding_attention")
        },
    },
    "deberta": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "deberta-v2": {
        "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16,
        "norm_rel_ebd": "layer_norm", "share_att_key": True, "position_biased_input": False,
        "type_vocab_size": 0,
    },
    "deepseek_v3": {"head_dim": 8},
    "doge": {"num_experts": 16},
    "funnel": {"block_sizes": [1, 1], "num_decoder_layers": 1},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 8},
    "jamba": {
        "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2,
        "expert_layer_offset": 1, "mamba_d_state": 4, "mamba_dt_rank": 4,
    },
    "layoutlmv3": {
        "coordinate_size": 6, "shape_size": 4, "input_size": 16, "patch_size": 8,
    },
    "lilt": {"hidden_size": 48, "channel_shrink_ratio": 2},
    "longformer": {"attention_window": [8, 8]},
    "luke": {"entity_vocab_size": 16, "entity_emb_size": 16},
    "markuplm": {"max_depth": 4, "xpath_unit_hidden_size": 8, },
    "mobilebert": {"intra_bottleneck_size": 16, "true_hidden_size": 16},
    "mpt": {"max_seq_len": POSITIONS},
    "nystromformer": {"num_landmarks": 8, "segment_means_seq_len": 8, "conv_kernel_size": 5},
    "perceiver": {
        "num_latents": 8, "d_latents": 32, "num_self_attends_per_block": 2,
        "num_self_attention_heads": 2, "num_cross_attention_heads": 2,
    },
    "qwen3_5_text": {
        "layer_types": LINEAR, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
        "linear_num_key_heads": 2, "linear_num_value_heads": 2,
    },
    "qwen3_next": {
        "layer_types": LINEAR, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
        "linear_num_key_heads": 2, "linear_num_value_heads": 2,
    },
    "reformer": {
        "axial_pos_embds_dim": [16, 16], "axial_pos_shape": [8, 8], "attn_layers": ["local", "lsh"],
        "local_attn_chunk_length": 8, "lsh_attn_chunk_length": 8, "num_buckets": 4,
        "is_decoder": False,
    },
    "rembert": {"input_embedding_size": 16, "output_embedding_size": 16},
    "roc_bert": {
        "pronunciation_embed_dim": 8, "pronunciation_vocab_size": 16, "shape_embed_dim": 8,
        "shape_vocab_size": 16,
    },
    "t5": {"decoder_start_token_id": 1},
    "tapas": {"type_vocab_sizes": [3, 8, 8, 2, 8, 8, 4]},
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "num_hidden_layers": 3, "layers_block_type": ["linear_attention", "hybrid", "hybrid"],
        "mamba_d_state": 4, "mamba_dt_rank": 4,
        "attention_hidden_size": 64, "attention_head_dim": 32,
    },
    "zamba2": {
        "num_hidden_layers": 3, "layers_block_type": ["linear_attention", "hybrid", "hybrid"],
        "mamba_d_state": 4, "chunk_size": 8,
        "n_mamba_heads": 4, "mamba_headdim": 16, "adapter_rank": 4,
    },
}  # fmt: skip


def tiny_config(model_type: str, special: dict[str, int | None], vocab_size: int) -> Any:
    """The config of two layers, 32 wide; `special` are the tokenizer's own ids by their names in a
    config (pad_token_id, ...)."""
    sizes = {**WIDTHS, **COUNTS, **LENGTHS, **SPREAD, **VISION, "vocab_size": vocab_size, **special}
    values = shrink(CONFIG_MAPPING[model_type]().to_dict(), sizes)
    return CONFIG_MAPPING[model_type](**{**values, **special, **OWN.get(model_type, {})})


def shrink(names: dict[str, Any], sizes: dict[str, Any]) -> dict[str, Any]:
    """Of a config's values those that `sizes` has, and the same of the configs inside it."""
    values = {}
    for name, value in names.items():
        if isinstance(value, dict) and "model_type" in value:
            inner = shrink(value, sizes)
            own = OWN.get(value["model_type"], {})
            values[name] = {**inner, "model_type": value["model_type"], **own}
        elif name in sizes and not (name == "num_channels" and value is None):
            values[name] = sizes[name]
    return values
