"""Reader `paragraphs`: of files `NAME.paragraphs`, whose rows are parted by empty lines."""

from djsb import BrokenFile, FileReader


class Paragraphs:
    """Rows of one file."""

    left_out, note, schema, unnamed = (), "", None, ()

    def __init__(self, file, options):
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise BrokenFile(f"{file} is not UTF-8; save it as UTF-8") from error
        self.files = [file]
        self._texts = [part.strip() for part in text.split("\n\n") if part.strip()]

    def __len__(self):
        return len(self._texts)

    def read(self, start, stop, fields=None):
        return [{"text": text} for text in self._texts[start:stop]]


PARAGRAPHS = FileReader(Paragraphs, version=1)
