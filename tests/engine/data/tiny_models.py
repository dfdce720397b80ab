"""Checkpoints of the right architecture and hardly any weights, for the OPs of Table 4 that score by a model.

Each function fills a folder with what one kind of OP needs and gives it back; nothing is downloaded.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

WORDS = ("a", "the", "red", "green", "blue", "photo", "of", "small", "dog", "cat", "runs", "sees", "big", "car", "and")
SIDE = 32
TOWER: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
VISION = {**TOWER, "image_size": SIDE, "patch_size": 16}
IMAGES = {"size": {"height": SIDE, "width": SIDE}, "do_center_crop": False}
BPE = {"bos_token_id": 1, "eos_token_id": 3, "pad_token_id": 0}


def bpe(folder: Path) -> tuple[Any, int]:
    """(a CLIP tokenizer of byte pairs, its number of tokens), saved in the folder."""
    from transformers import CLIPTokenizer

    from engine.tasks.shared.tokens import byte_level_bpe

    raw = byte_level_bpe(iter([" ".join(WORDS)] * 20), 400)
    made = CLIPTokenizer(
        tokenizer_object=raw, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>",
        model_max_length=16,
    )  # fmt: skip
    made.save_pretrained(folder)
    return made, raw.get_vocab_size()


def clip(folder: Path) -> Path:
    """For image_text_similarity, video_frames_text_similarity and token_num."""
    import torch
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

    tokenizer, size = bpe(folder)
    torch.manual_seed(0)
    text = {**TOWER, "vocab_size": size, "max_position_embeddings": 16, **BPE}
    CLIPModel(CLIPConfig(text_config=text, vision_config=VISION, projection_dim=8)).save_pretrained(folder)
    CLIPProcessor(CLIPImageProcessor(**IMAGES), tokenizer).save_pretrained(folder)
    return folder


def blip(folder: Path) -> Path:
    """For image_text_matching."""
    import torch
    from transformers import BertTokenizer, BlipConfig, BlipForImageTextRetrieval, BlipImageProcessor, BlipProcessor

    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(pieces))
    tokenizer = BertTokenizer(vocab={p: i for i, p in enumerate(pieces)})
    torch.manual_seed(1)
    text = {**TOWER, "vocab_size": len(pieces), "max_position_embeddings": 16, "encoder_hidden_size": 16,
            "bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}  # fmt: skip
    config = BlipConfig(text_config=text, vision_config=VISION, projection_dim=8, image_text_hidden_size=8)
    BlipForImageTextRetrieval(config).save_pretrained(folder)
    BlipProcessor(BlipImageProcessor(size=IMAGES["size"]), tokenizer).save_pretrained(folder)
    return folder


def classifier(folder: Path, seed: int) -> Path:
    """A ViT of two classes, the second the bad one, for image_nsfw, image_watermark and those of videos."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    torch.manual_seed(seed)
    ViTForImageClassification(ViTConfig(**VISION, num_labels=2)).save_pretrained(folder)
    ViTImageProcessor(size=IMAGES["size"]).save_pretrained(folder)
    return folder


def aesthetics(folder: Path) -> Path:
    """For image_aesthetics and video_aesthetics; the folder's path must have v2 and linear in it."""
    import torch
    from aesthetics_predictor import AestheticsPredictorV2Linear
    from transformers import CLIPImageProcessor, CLIPProcessor, CLIPVisionConfig

    torch.manual_seed(2)
    AestheticsPredictorV2Linear(CLIPVisionConfig(**VISION, projection_dim=8)).save_pretrained(folder)
    CLIPProcessor(CLIPImageProcessor(**IMAGES), bpe(folder)[0]).save_pretrained(folder)
    return folder


def owlvit(folder: Path) -> Path:
    """For phrase_grounding_recall."""
    import torch
    from transformers import OwlViTConfig, OwlViTForObjectDetection, OwlViTImageProcessor, OwlViTProcessor

    tokenizer, size = bpe(folder)
    torch.manual_seed(3)
    text = {**TOWER, "vocab_size": size, "max_position_embeddings": 16, **BPE}
    config = OwlViTConfig(text_config=text, vision_config=VISION, projection_dim=16)
    OwlViTForObjectDetection(config).save_pretrained(folder)
    OwlViTProcessor(OwlViTImageProcessor(**IMAGES), tokenizer).save_pretrained(folder)
    return folder


def causal(folder: Path) -> Path:
    """For llm_perplexity, instruction_following_difficulty, in_context_influence and text_embd_similarity."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    _, size = bpe(folder)
    torch.manual_seed(4)
    config = LlamaConfig(**TOWER, num_key_value_heads=2, vocab_size=size, max_position_embeddings=64, **BPE)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def nltk_data(folder: Path) -> Path:
    """What NLTK finds noun phrases with: sentences that end at full stops, a tagger that knows its words by heart."""
    punkt, tagger = folder / "tokenizers/punkt_tab/english", folder / "taggers/averaged_perceptron_tagger_eng"
    for made in (punkt, tagger):
        made.mkdir(parents=True)
    for name in ("collocations.tab", "sent_starters.txt", "abbrev_types.txt", "ortho_context.tab"):
        (punkt / name).write_text("")
    tags = {"a": "DT", "the": "DT", "red": "JJ", "small": "JJ", "dog": "NN", "cat": "NN", "car": "NN", "runs": "VBZ",
            "sees": "VBZ", "and": "CC", "of": "IN", "photo": "NN"}  # fmt: skip
    name = "averaged_perceptron_tagger_eng"
    for part, content in (("weights", {}), ("tagdict", tags), ("classes", sorted(set(tags.values())))):
        (tagger / f"{name}.{part}.json").write_text(json.dumps(content))
    return folder


def word_lists(folder: Path) -> Path:
    """For flagged_words and stopwords."""
    (folder / "flagged_words.json").write_text(json.dumps({"en": ["dog"]}))
    (folder / "stopwords.json").write_text(json.dumps({"en": ["a", "the", "of", "and"]}))
    return folder


def spacy_model(folder: Path) -> None:
    """For text_action and text_entity_dependency: a tagger of words known by heart and a parser that has learned two
    sentences.

    The archive is there and empty, as its unpacked folder is.
    """
    import spacy
    from spacy.tokens import Doc
    from spacy.training import Example

    nlp = spacy.blank("en")
    tags = {"VERB": ("VBZ", ("runs", "sees")), "NOUN": ("NN", ("dog", "cat", "car")), "DET": ("DT", ("a", "the"))}
    parser = nlp.add_pipe("parser")
    sentences = [
        (["a", "dog", "runs"], [1, 2, 2], ["det", "nsubj", "ROOT"]),
        (["a", "dog", "sees", "the", "cat"], [1, 2, 2, 4, 2], ["det", "nsubj", "ROOT", "det", "dobj"]),
    ]
    examples = []
    for words, heads, labels in sentences:
        for label in labels:
            parser.add_label(label)  # type: ignore[attr-defined]
        doc = Doc(nlp.vocab, words=words)
        examples.append(Example.from_dict(doc, {"heads": heads, "deps": labels}))
    spacy.util.fix_random_seed(0)
    optimizer = nlp.initialize(lambda: examples)
    for _ in range(30):
        nlp.update(examples, sgd=optimizer)
    ruler = nlp.add_pipe("attribute_ruler")
    for pos, (tag, words) in tags.items():
        ruler.add([[{"LOWER": {"IN": list(words)}}]], {"POS": pos, "TAG": tag})  # type: ignore[attr-defined]
    nlp.to_disk(folder / "en_core_web_md-3.7.0")
    (folder / "en_core_web_md-3.7.0.tar.gz").touch()


def sentence_pieces(folder: Path) -> None:
    """For perplexity: pieces of the words, and a language model of one and two of them in ARPA's format."""
    import io

    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(WORDS)] * 20), model_writer=model, vocab_size=len(WORDS) + 3, minloglevel=2,
        model_type="word",
    )  # fmt: skip
    (folder / "en.sp.model").write_bytes(model.getvalue())
    words = [("<unk>", -2.0), ("<s>", -99.0), ("</s>", -0.5), ("\u2581a", -0.5), ("\u2581dog", -1.0)]
    ones = "\n".join(f"{p:.4f}\t{w}\t0" for w, p in words)
    twos = "-0.2500\t\u2581a \u2581dog"
    arpa = f"\\data\\\nngram 1={len(words)}\nngram 2=1\n\n\\1-grams:\n{ones}\n\n\\2-grams:\n{twos}\n\n\\end\\\n"
    (folder / "en.arpa.bin").write_text(arpa, encoding="utf-8")


def languages(folder: Path, other: str = "de", its: tuple[str, ...] = ("hund", "der", "rot")) -> None:
    """For language_id_score: fastText's binary format, one weight a word and language. its: three words of `other`."""
    english, german = ("dog", "the", "red"), its
    words = ["</s>", *english, *german]
    labels = ["__label__en", f"__label__{other}"]
    # width, window, epochs, least count, negatives, n-grams, loss (softmax), model (supervised), buckets, minn, maxn …
    out = struct.pack("<ii", 793712314, 12) + struct.pack("<12id", 2, 5, 1, 1, 5, 1, 3, 3, 0, 0, 0, 100, 1e-4)
    out += struct.pack("<iiiqq", len(words) + 2, len(words), 2, 100, -1)
    for kind, names in ((0, words), (1, labels)):
        for name in names:
            out += name.encode() + b"\0" + struct.pack("<qb", 10, kind)
    inputs = [(0.0, 0.0), *[(2.0, 0.0)] * 3, *[(0.0, 2.0)] * 3]
    for matrix in (inputs, [(1.0, -1.0), (-1.0, 1.0)]):
        out += struct.pack("<?qq", False, len(matrix), 2)
        out += b"".join(struct.pack("<ff", *row) for row in matrix)
    (folder / "lid.176.bin").write_bytes(out)


def home(folder: Path) -> None:
    """DATA_JUICER_EXTERNAL_MODELS_HOME with all that text OPs look for."""
    spacy_model(folder)
    sentence_pieces(folder)
    languages(folder)
