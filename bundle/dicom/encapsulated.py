"""A page for people, as an encapsulated PDF."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.uid import EncapsulatedPDFStorage

from bundle.dicom.common import first_header, new_object
from bundle.dicom.series import Series


def encapsulated_pdf(pdf: bytes, title: str, series: Series) -> Dataset:
    """A PDF as an object of the study of a series (PS3.3 A.45.1).

    Args:
        pdf: the file's content, which names no patient.
        title: title of the document.
        series: series whose patient and study it gets.

    Returns:
        An Encapsulated PDF.
    """
    made = new_object(first_header(series), EncapsulatedPDFStorage, "report", title)
    made.Modality, made.ConversionType = "DOC", "WSD"
    made.BurnedInAnnotation = "NO"
    made.AcquisitionDateTime = None
    made.DocumentTitle, made.ConceptNameCodeSequence = title, []
    made.MIMETypeOfEncapsulatedDocument = "application/pdf"
    # An element has an even length; a PDF may have anything after its end mark.
    made.EncapsulatedDocument = pdf + b"\0" * (len(pdf) % 2)
    made.EncapsulatedDocumentLength = len(pdf)
    return made
