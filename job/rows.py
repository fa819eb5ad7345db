"""Which rows a run has, as the data package takes it. Nothing heavy is imported here."""

from dataclasses import fields

from configs.schema import Config
from data.clean import CleanArgs
from data.prepare import Data, DataArgs, load_data

LENGTH, LABEL = "length", "label"  # of eval.slices, not columns of the source


def text_columns(config: Config) -> tuple[str, ...]:
    """The columns of the text: one, or two for pairs."""
    return (config.data.text,) if isinstance(config.data.text, str) else tuple(config.data.text)


def clean_args(config: Config) -> CleanArgs:
    """The cleaning steps of [data.clean] as the data package takes them."""
    return CleanArgs(**config.data.clean.model_dump(exclude={"ends"}))


def slice_columns(config: Config) -> tuple[str, ...]:
    """The columns of the source that eval.slices names."""
    return tuple(name for name in config.eval.slices if name not in (LENGTH, LABEL))


def load_rows(config: Config) -> Data:
    """The rows of a recipe: all of them, or where training rows stream the others and a sample."""
    if not config.data.stream:
        return load_data(data_args(config))
    from data.stream.cut import StreamArgs
    from data.stream.labelled import load_streamed

    args = StreamArgs(config.data.shuffle_buffer, config.run.seed)
    return load_streamed(data_args(config), args)


def refuse_stream(config: Config) -> None:
    """Raise ValueError for a recipe whose training rows stream, where all would be read."""
    if config.data.stream:
        raise ValueError(
            "data.stream: check.py reads all training rows, compares them with each other and "
            "keeps them; look at a part of them: data.stream=false with fewer files in data.source"
        )


def data_args(config: Config) -> DataArgs:
    """The part of [data] that says which rows there are."""
    taken = {f.name for f in fields(DataArgs)} - {"clean", "left_out", "slices"}
    values = config.data.model_dump(include=taken)
    values["text"] = text_columns(config)
    label = values["label"]
    values["label"] = (label,) if isinstance(label, str) else tuple(label)
    if isinstance(values["header"], list):
        values["header"] = tuple(values["header"])
    values["labels"] = None if values["labels"] is None else tuple(values["labels"])
    beside = config.bag is not None and config.bag.rows == "all" and "train" in values["subset"]
    slices = slice_columns(config)
    return DataArgs(clean=clean_args(config), left_out=beside, slices=slices, **values)
