"""A DICOMweb server with a few series, as far as MONAI Label asks one: search, and retrieval of a series."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import pydicom


class DicomWeb:
    """Serves folders of DICOM series at ``url``, each under its SeriesInstanceUID, until it is closed."""

    def __init__(self, folders):
        self.series = {}
        for folder in folders:
            files = sorted(Path(folder).iterdir())
            self.series[str(pydicom.dcmread(files[0]).SeriesInstanceUID)] = files
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.server.server_port}/dicom-web"
        Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def search(self, wanted):
        """What QIDO-RS answers about series."""
        keys = {"StudyInstanceUID", "SeriesInstanceUID", "Modality", "PatientID", "StudyDate"}
        found = []
        for uid, files in self.series.items():
            data = pydicom.dcmread(files[0], stop_before_pixels=True)
            if wanted.get("SeriesInstanceUID", [uid]) == [uid] and wanted.get("Modality", ["MR"]) == ["MR"]:
                found.append(
                    {
                        tag: item
                        for tag, item in data.to_json_dict().items()
                        if pydicom.datadict.keyword_for_tag(tag) in keys
                    }
                )
        return found

    def _handler(self):
        served = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                place = urlsplit(self.path)
                uid = place.path.rsplit("/", 1)[-1]
                if uid in served.series:
                    parts = [path.read_bytes() for path in served.series[uid]]
                    head = b"\r\n--part\r\nContent-Type: application/dicom\r\n\r\n"
                    body = b"".join(head + part for part in parts) + b"\r\n--part--"
                    self.answer('multipart/related; type="application/dicom"; boundary=part', body)
                else:
                    self.answer("application/dicom+json", json.dumps(served.search(parse_qs(place.query))).encode())

            def answer(self, kind, body):
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *message):
                pass

        return Handler
