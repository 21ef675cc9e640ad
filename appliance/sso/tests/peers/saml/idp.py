"""The SAML identity provider of other people that the tests sign in at: pysaml2, over TLS on a free port. Reads its
settings as one line of JSON, prints its port, waits for a second line with the service provider's metadata, and ends
with its standard input."""
import http.server
import json
import os
import ssl
import sys
import tempfile
import threading
import urllib.parse

from saml2 import BINDING_HTTP_POST, BINDING_HTTP_REDIRECT
from saml2.authn_context import PASSWORDPROTECTEDTRANSPORT
from saml2.config import IdPConfig
from saml2.s_utils import rndstr
from saml2.saml import NAMEID_FORMAT_PERSISTENT, NameID
from saml2.server import Server
from saml2.xmldsig import DIGEST_SHA256, SIG_RSA_SHA256

settings = json.loads(sys.stdin.readline())
folder = tempfile.mkdtemp()
for name in ("tls_cert", "tls_key", "cert", "key"):
    with open(os.path.join(folder, name), "w") as out:
        out.write(settings[name])
path = lambda name: os.path.join(folder, name)

httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), None)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(path("tls_cert"), path("tls_key"))
httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
base = f"https://127.0.0.1:{httpd.server_address[1]}"
print(f"PORT {httpd.server_address[1]}", flush=True)

metadata = json.loads(sys.stdin.readline())
config = IdPConfig().load({
    "entityid": "https://idp.test/metadata",
    "service": {"idp": {
        "endpoints": {
            "single_sign_on_service": [(f"{base}/sso", BINDING_HTTP_REDIRECT)],
            "single_logout_service": [(f"{base}/slo", BINDING_HTTP_REDIRECT)],
        },
        "policy": {"default": {"lifetime": {"minutes": 5}, "name_form": "urn:oasis:names:tc:SAML:2.0:attrname-format:basic"}},
        "want_authn_requests_signed": True,
        "want_authn_requests_only_with_valid_cert": False,
    }},
    "key_file": path("key"), "cert_file": path("cert"), "metadata": {"inline": [metadata]},
    "xmlsec_binary": "/usr/bin/xmlsec1", "allow_unknown_attributes": True,
})
idp = Server(config=config)
SP = settings["sp"]
NAME = NameID(format=NAMEID_FORMAT_PERSISTENT, text="alice-1")
ALGORITHMS = {"sign_alg": SIG_RSA_SHA256, "digest_alg": DIGEST_SHA256}


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        query = {name: values[0] for name, values in urllib.parse.parse_qs(url.query).items()}
        try:
            getattr(self, "at" + url.path.replace("/", "_"))(query)
        except Exception as error:
            self.page(f"refused: {error!r}")

    def at_sso(self, query):
        request = idp.parse_authn_request(query["SAMLRequest"], BINDING_HTTP_REDIRECT, relay_state=query["RelayState"],
                                          sigalg=query["SigAlg"], signature=query["Signature"])
        response = idp.create_authn_response(
            {"groups": ["zixt-users"]}, request.message.id, settings["acs"], SP, name_id=NAME,
            authn={"class_ref": PASSWORDPROTECTEDTRANSPORT}, sign_assertion=True,
            sign_response=settings["sign_response"], **ALGORITHMS)
        form = idp.apply_binding(BINDING_HTTP_POST, str(response), settings["acs"], query["RelayState"], response=True)
        self.page(form["data"] if isinstance(form["data"], str) else "".join(form["data"]))

    def at_slo(self, query):
        if "SAMLResponse" in query:
            response = idp.parse_logout_request_response(query["SAMLResponse"], BINDING_HTTP_REDIRECT)
            ok = response.response.status.status_code.value.endswith(":Success") and "Signature" in query
            self.page("logged out" if ok else "refused")
            return
        request = idp.parse_logout_request(query["SAMLRequest"], BINDING_HTTP_REDIRECT, relay_state=query["RelayState"],
                                           sigalg=query["SigAlg"], signature=query["Signature"])
        assert request.message.name_id.text == "alice-1", request.message.name_id.text
        response = idp.create_logout_response(request.message, [BINDING_HTTP_REDIRECT], sign=False)
        self.redirect(str(response), query["RelayState"], response=True)

    def at_start_logout(self, _):
        id, request = idp.create_logout_request(settings["slo"], SP, name_id=NAME, session_indexes=["session-1"], sign=False)
        self.redirect(str(request), rndstr())

    def redirect(self, message, relay_state, response=False):
        info = idp.apply_binding(BINDING_HTTP_REDIRECT, message, settings["slo"], relay_state, response=response,
                                 sign=True, sigalg=SIG_RSA_SHA256)
        self.send_response(302)
        self.send_header("Location", dict(info["headers"])["Location"])
        self.send_header("Content-Length", "0")
        self.end_headers()

    def page(self, text):
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


httpd.RequestHandlerClass = Handler
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
print("READY", flush=True)
httpd.serve_forever()
