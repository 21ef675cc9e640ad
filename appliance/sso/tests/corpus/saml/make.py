#!/usr/bin/env python3
"""Makes the corpus of SAML responses in this folder: good ones, and hostile ones that are good but for one thing.

Needs xmlsec1 and openssl. Run it in this folder after a change; the keys are kept if they are there. Every file has a
fixed time, request and relay state, which manifest.json names, so that a test can check it at any later time.
"""
import base64
import json
import os
import re
import subprocess
import tempfile
import zlib

IDP, SP = "https://idp.test/metadata", "https://zixt.test/saml"
ACS = "https://zixt.test/saml/acs"
REQUEST, RELAY = "_request-1", "relay-1"
NOW = "2026-11-28T01:00:05Z"
SAML, SAMLP = "urn:oasis:names:tc:SAML:2.0:assertion", "urn:oasis:names:tc:SAML:2.0:protocol"
DS = "http://www.w3.org/2000/09/xmldsig#"
MORE = "http://www.w3.org/2001/04/xmldsig-more#"
ENC = "http://www.w3.org/2001/04/xmlenc#"
EXC = "http://www.w3.org/2001/10/xml-exc-c14n#"
ENVELOPED = DS + "enveloped-signature"
PERSISTENT = "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent"
BEARER = "urn:oasis:names:tc:SAML:2.0:cm:bearer"
PASSWORD = "urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport"

KEYS = {
    "idp": ["-newkey", "rsa:2048"],
    "next": ["-newkey", "rsa:2048"],
    "evil": ["-newkey", "rsa:2048"],
    "ec": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
    "sp": ["-newkey", "rsa:2048"],
}


def run(*command, data=None):
    done = subprocess.run(command, input=data, capture_output=True)
    if done.returncode != 0:
        raise SystemExit(f"{command}: {done.stderr.decode()}")
    return done.stdout


def keys():
    for name, kind in KEYS.items():
        if not os.path.exists(f"keys/{name}.key.pem"):
            subject = "/CN=idp.test" if name in ("idp", "evil") else f"/CN={name}.test"
            run("openssl", "req", "-x509", "-nodes", *kind, "-keyout", f"keys/{name}.key.pem",
                "-out", f"keys/{name}.cert.pem", "-days", "36500", "-subj", subject)


def signature(reference, alg=MORE + "rsa-sha256", digest=ENC + "sha256", c14n=EXC, transforms=None, uri=None,
              references=1, prefix="ds", extra="", cert=True):
    """A template that xmlsec1 fills in."""
    p = prefix + ":" if prefix else ""
    ns = f'xmlns:{prefix}="{DS}"' if prefix else f'xmlns="{DS}"'
    transforms = [ENVELOPED, EXC] if transforms is None else transforms
    inner = "".join(f if f.startswith("<") else f'<{p}Transform Algorithm="{f}"/>' for f in transforms)
    inner = f"<{p}Transforms>{inner}</{p}Transforms>" if transforms else ""
    uri = f"#{reference}" if uri is None else uri
    one = (f'<{p}Reference URI="{uri}">{inner}<{p}DigestMethod Algorithm="{digest}"/>'
           f"<{p}DigestValue></{p}DigestValue></{p}Reference>")
    key = f"<{p}KeyInfo><{p}X509Data/></{p}KeyInfo>" if cert else ""
    return (f"<{p}Signature {ns}><{p}SignedInfo>"
            f'<{p}CanonicalizationMethod Algorithm="{c14n}"/><{p}SignatureMethod Algorithm="{alg}"/>'
            f"{one * references}</{p}SignedInfo><{p}SignatureValue></{p}SignatureValue>{key}{extra}</{p}Signature>")


def assertion(name="alice-1", id="_assertion-1", sign=None, issuer=IDP, format=PERSISTENT, audience=None,
              conditions=None, confirmation=None, subject=None, authn=None, attributes=None, version="2.0"):
    sign = signature(id) if sign is None else sign
    audience = f"<saml:AudienceRestriction><saml:Audience>{SP}</saml:Audience></saml:AudienceRestriction>" \
        if audience is None else audience
    conditions = 'NotBefore="2026-11-28T00:59:00Z" NotOnOrAfter="2026-11-28T01:05:00Z"' \
        if conditions is None else conditions
    confirmation = confirm() if confirmation is None else confirmation
    subject = f'<saml:Subject><saml:NameID Format="{format}">{name}</saml:NameID>{confirmation}</saml:Subject>' \
        if subject is None else subject
    authn = (f'<saml:AuthnStatement AuthnInstant="2026-11-28T00:59:50Z" SessionIndex="session-1"><saml:AuthnContext>'
             f"<saml:AuthnContextClassRef>{PASSWORD}</saml:AuthnContextClassRef></saml:AuthnContext>"
             f"</saml:AuthnStatement>") if authn is None else authn
    attributes = (f'<saml:AttributeStatement><saml:Attribute Name="groups">'
                  f"<saml:AttributeValue>zixt-users</saml:AttributeValue></saml:Attribute>"
                  f"</saml:AttributeStatement>") if attributes is None else attributes
    return (f'<saml:Assertion xmlns:saml="{SAML}" ID="{id}" Version="{version}" IssueInstant="2026-11-28T01:00:00Z">'
            f"<saml:Issuer>{issuer}</saml:Issuer>{sign}{subject}"
            f"<saml:Conditions {conditions}>{audience}</saml:Conditions>{authn}{attributes}</saml:Assertion>")


def confirm(method=BEARER, recipient=f'Recipient="{ACS}"', request=f'InResponseTo="{REQUEST}"',
            end='NotOnOrAfter="2026-11-28T01:05:00Z"'):
    return (f'<saml:SubjectConfirmation Method="{method}"><saml:SubjectConfirmationData {recipient} {request} {end}/>'
            f"</saml:SubjectConfirmation>")


def response(inside, id="_response-1", sign="", issuer=IDP, destination=f'Destination="{ACS}"',
             request=f'InResponseTo="{REQUEST}"', status="Success", before="", after=""):
    return (f'<samlp:Response xmlns:samlp="{SAMLP}" ID="{id}" Version="2.0" IssueInstant="2026-11-28T01:00:00Z" '
            f'{destination} {request}><saml:Issuer xmlns:saml="{SAML}">{issuer}</saml:Issuer>{sign}{before}'
            f'<samlp:Status><samlp:StatusCode Value="urn:oasis:names:tc:SAML:2.0:status:{status}"/></samlp:Status>'
            f"{inside}{after}</samlp:Response>")


def sign(xml, node="Assertion", key="idp", hmac=None):
    """Fills the signature of the first Assertion or of the Response."""
    path = {"Assertion": "//*[local-name()='Assertion'][1]/*[local-name()='Signature']",
            "Response": "/*[local-name()='Response']/*[local-name()='Signature']",
            "LogoutRequest": "/*[local-name()='LogoutRequest']/*[local-name()='Signature']"}[node]
    with tempfile.NamedTemporaryFile("w", suffix=".xml") as file:
        file.write(xml)
        file.flush()
        secret = ["--hmackey", hmac] if hmac else ["--privkey-pem", f"keys/{key}.key.pem,keys/{key}.cert.pem"]
        out = run("xmlsec1", "--sign", *secret, "--id-attr:ID", f"{SAML}:Assertion", "--id-attr:ID",
                  f"{SAMLP}:Response", "--id-attr:ID", f"{SAMLP}:LogoutRequest", "--node-xpath", path, file.name).decode()
    return out.split("?>\n", 1)[1].rstrip("\n")


def part(xml, name):
    """The first element of a local name, as it stands."""
    found = re.search(rf"<(\w+:)?{name}[ >].*?</(\w+:)?{name}>", xml, re.S)
    return found.group(0)


def cut(xml, name):
    return xml.replace(part(xml, name), "", 1)


GOOD = None
CASES = []


def case(file, expected, content, why, **more):
    mode = "wb" if isinstance(content, bytes) else "w"
    if content is not None:
        with open(file, mode) as out:
            out.write(content)
    CASES.append({"file": file, "expected": expected, "why": why, **more})


def plain(**more):
    return sign(response(assertion(**more)))


def good():
    case("good-assertion-signed.xml", "signed-in", GOOD, "what every hostile file is made from")
    both = sign(sign(response(assertion(), sign=signature("_response-1"))), "Response")
    case("good-both-signed.xml", "signed-in", both, "response and assertion signed")
    case("good-sha512.xml", "signed-in",
         plain(sign=signature("_assertion-1", MORE + "rsa-sha512", ENC + "sha512")), "RSA with SHA-512")
    case("good-next-key.xml", "signed-in", sign(response(assertion()), key="next"), "the second pinned certificate")
    case("good-declared.xml", "signed-in", '<?xml version="1.0" encoding="UTF-8"?>\n' + GOOD, "an XML declaration")
    qualified = (f'<saml:Subject><saml:NameID Format="{PERSISTENT}" NameQualifier="{IDP}" SPNameQualifier="{SP}">alice-1'
                 f"</saml:NameID>{confirm()}</saml:Subject>")
    case("good-qualified-name.xml", "signed-in", plain(subject=qualified), "a name of this provider's, for this service")
    case("good-signature-without-certificate.xml", "signed-in", plain(sign=signature("_assertion-1", cert=False)),
         "no KeyInfo")


def wrapping():
    evil = cut(GOOD, "Signature").replace("alice-1", "admin")
    evil_assertion = part(evil, "Assertion").replace("_assertion-1", "_evil-1")
    signed = part(GOOD, "Assertion")
    sig = part(GOOD, "Signature")
    bare = cut(signed, "Signature")
    whole = sign(response(cut(assertion(), "Signature"), sign=signature("_response-1")), "Response")
    whole_sig = part(whole, "Signature")
    whole_bare = cut(whole, "Signature")
    evil_response = whole_bare.replace("alice-1", "admin").replace("_response-1", "_evil-response")

    def put(where, what):
        return where.replace("</samlp:Response>", f"{what}</samlp:Response>")

    def inside_signature(what):
        return whole_sig.replace("</ds:Signature>", f"<ds:Object>{what}</ds:Object></ds:Signature>")

    structure = "saml-structure"
    case("xsw-1.xml", structure, evil_response.replace("<samlp:Status>", inside_signature(whole_bare) + "<samlp:Status>", 1),
         "the signed response in the signature of an evil one")
    case("xsw-2.xml", structure,
         evil_response.replace("<samlp:Status>", whole_bare + whole_sig + "<samlp:Status>", 1),
         "the signed response beside its signature in an evil one")
    case("xsw-3.xml", structure, GOOD.replace(signed, evil_assertion + signed), "an evil assertion before the signed one")
    nested = evil_assertion.replace("</saml:Assertion>", signed + "</saml:Assertion>")
    case("xsw-4.xml", structure, GOOD.replace(signed, nested), "the signed assertion in an evil one")
    with_sig = evil_assertion.replace("<saml:Subject>", sig + "<saml:Subject>", 1)
    case("xsw-5.xml", structure, GOOD.replace(signed, with_sig + bare), "the signature in an evil assertion, the signed one after it")
    deep = sig.replace("</ds:Signature>", f"{bare}</ds:Signature>")
    case("xsw-6.xml", structure,
         GOOD.replace(signed, evil_assertion.replace("<saml:Subject>", deep + "<saml:Subject>", 1)),
         "the signed assertion in the signature of an evil one")
    case("xsw-7.xml", structure,
         GOOD.replace("<samlp:Status>", f"<samlp:Extensions>{evil_assertion}</samlp:Extensions><samlp:Status>"),
         "an evil assertion in the extensions")
    obj = sig.replace("</ds:Signature>", f"<ds:Object>{bare}</ds:Object></ds:Signature>")
    case("xsw-8.xml", structure,
         GOOD.replace(signed, evil_assertion.replace("<saml:Subject>", obj + "<saml:Subject>", 1)),
         "the signed assertion in an object of the signature of an evil one")
    detail = f"</samlp:StatusCode><samlp:StatusDetail>{signed}</samlp:StatusDetail></samlp:Status>"
    case("xsw-9.xml", structure,
         re.sub(r"/></samlp:Status>", ">" + detail.replace("\\", r"\\"), GOOD.replace(signed, evil_assertion), count=1),
         "the signed assertion in the status of a response with an evil one")
    case("xsw-same-id.xml", structure, GOOD.replace(signed, evil_assertion.replace("_evil-1", "_assertion-1") + signed),
         "an evil assertion with the id of the signed one")
    case("xsw-foreign-namespace.xml", structure,
         GOOD.replace(signed, evil_assertion.replace(f'xmlns:saml="{SAML}"', 'xmlns:saml="urn:evil"') + signed),
         "an evil assertion of another namespace")
    case("xsw-second-subject.xml", structure, GOOD.replace(
        "<saml:Conditions", '<saml:Subject><saml:NameID>admin</saml:NameID></saml:Subject><saml:Conditions', 1),
        "a second subject after the signed one")
    case("two-signed-assertions.xml", structure, GOOD.replace(
        signed, signed + part(plain(id="_assertion-2", name="bob-1"), "Assertion")), "two assertions, both signed")
    case("id-spelled-otherwise.xml", structure, GOOD.replace("<samlp:Status>", '<samlp:Status Id="_assertion-1">'),
         "the signed id once more, as Id")


def signatures():
    case("unsigned.xml", "saml-signature-missing", cut(GOOD, "Signature"), "no signature")
    whole = sign(response(cut(assertion(), "Signature"), sign=signature("_response-1")), "Response")
    case("response-signed-only.xml", "saml-signature-missing", whole, "only the envelope is signed")
    case("name-changed.xml", "saml-signature", GOOD.replace("alice-1", "admin"), "changed after signing")
    case("group-changed.xml", "saml-signature", GOOD.replace("zixt-users", "zixt-ops"), "changed after signing")
    case("other-key.xml", "saml-signature", sign(response(assertion("admin")), key="evil"),
         "signed by a key whose certificate has the same name, and comes along")
    case("other-key-without-certificate.xml", "saml-signature",
         sign(response(assertion("admin", sign=signature("_assertion-1", cert=False))), key="evil"), "another key")
    swapped = sign(response(assertion("admin")), key="evil")
    case("other-key-with-our-certificate.xml", "saml-signature",
         swapped.replace(part(swapped, "X509Certificate"), part(GOOD, "X509Certificate")),
         "another key under the pinned certificate")
    case("signature-value-empty.xml", "saml-signature", re.sub(r"(<ds:SignatureValue>)[^<]*", r"\1", GOOD), "no value")
    case("digest-changed.xml", "saml-signature", re.sub(r"(<ds:DigestValue>).", r"\1A", GOOD), "another digest")
    algorithm = "saml-algorithm"
    refused = "saml-signature"
    case("rsa-sha1.xml", algorithm, plain(sign=signature("_assertion-1", DS + "rsa-sha1")), "RSA with SHA-1")
    case("digest-sha1.xml", algorithm, plain(sign=signature("_assertion-1", digest=DS + "sha1")), "a digest by SHA-1")
    case("ecdsa.xml", refused,
         sign(response(assertion(sign=signature("_assertion-1", MORE + "ecdsa-sha256"))), key="ec"), "ECDSA")
    hmac = signature("_assertion-1", MORE + "hmac-sha256", cert=False)
    case("hmac-with-the-certificate.xml", refused,
         sign(response(assertion("admin", sign=hmac)), hmac="keys/idp.cert.pem"), "a MAC under the public certificate")
    case("hmac-truncated.xml", refused, sign(response(assertion("admin", sign=hmac)), hmac="keys/idp.cert.pem").replace(
        f'<ds:SignatureMethod Algorithm="{MORE}hmac-sha256"/>',
        f'<ds:SignatureMethod Algorithm="{MORE}hmac-sha256"><ds:HMACOutputLength>0</ds:HMACOutputLength></ds:SignatureMethod>'),
        "a MAC of no bits")
    inclusive = "http://www.w3.org/TR/2001/REC-xml-c14n-20010315"
    case("c14n-inclusive.xml", algorithm, plain(sign=signature("_assertion-1", c14n=inclusive)), "inclusive C14N")
    case("c14n-with-comments.xml", algorithm, plain(sign=signature(
        "_assertion-1", transforms=[ENVELOPED, EXC + "WithComments"])), "C14N with comments")
    xpath = (f'<ds:Transform Algorithm="http://www.w3.org/TR/1999/REC-xpath-19991116"><ds:XPath>'
             f"not(ancestor-or-self::ds:Signature)</ds:XPath></ds:Transform>")
    case("transform-xpath.xml", algorithm, plain(sign=signature("_assertion-1", transforms=[xpath, EXC])), "XPath")
    xslt = ('<ds:Transform Algorithm="http://www.w3.org/TR/1999/REC-xslt-19991116"><xsl:stylesheet version="1.0" '
            'xmlns:xsl="http://www.w3.org/1999/XSL/Transform"><xsl:template match="/"><x/></xsl:template>'
            "</xsl:stylesheet></ds:Transform>")
    case("transform-xslt.xml", refused, plain(sign=signature("_assertion-1", transforms=[xslt, EXC])), "XSLT")
    case("transform-many.xml", "saml-structure",
         plain(sign=signature("_assertion-1", transforms=[ENVELOPED] + [EXC] * 100)), "a hundred transforms")
    case("reference-empty.xml", refused, plain(sign=signature("_assertion-1", uri="")), "the whole document")
    case("reference-outside.xml", refused, GOOD.replace('URI="#_assertion-1"', 'URI="https://evil.test/x"'),
         "something elsewhere")
    case("reference-file.xml", refused, GOOD.replace('URI="#_assertion-1"', 'URI="file:///etc/hostname"'), "a file")
    case("reference-to-nothing.xml", "saml-signature", GOOD.replace('URI="#_assertion-1"', 'URI="#_nothing"'),
         "an id that is not there")
    case("reference-xpointer.xml", refused, plain(sign=signature(
        "_assertion-1", uri="#xpointer(id('_assertion-1'))")), "an XPointer")
    case("two-references.xml", "saml-structure", plain(sign=signature("_assertion-1", references=2)), "two references")
    case("signature-elsewhere.xml", "saml-structure", cut(GOOD, "Signature").replace(
        "<saml:Conditions", part(GOOD, "Signature") + "<saml:Conditions", 1), "a signature in a place of its own")


def markup():
    m = "saml-markup"
    doctype = "<!DOCTYPE samlp:Response>"
    case("doctype.xml", m, doctype + GOOD, "a document type")
    case("doctype-external.xml", m, '<!DOCTYPE r SYSTEM "https://evil.test/x.dtd">' + GOOD, "one from elsewhere")
    case("xxe-file.xml", m, '<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + GOOD.replace("alice-1", "&x;"),
         "a file as an entity")
    case("entity-of-its-own.xml", m, '<!DOCTYPE r [<!ENTITY x "admin">]>' + GOOD.replace("alice-1", "&x;"), "an entity")
    case("parameter-entity.xml", m, '<!DOCTYPE r [<!ENTITY % x SYSTEM "https://evil.test/x"> %x;]>' + GOOD, "a parameter entity")
    bomb = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10 if n else "lol"}">' for n in range(10))
    case("entity-bomb.xml", m, f"<!DOCTYPE r [{bomb}]>" + GOOD.replace("alice-1", "&e9;"), "ten thousand million laughs")
    case("attlist-id.xml", m, "<!DOCTYPE r [<!ATTLIST saml:Subject x ID #IMPLIED>]>" + GOOD, "another attribute as the id")
    for file, inside, why in [
        ("comment-in-the-name.xml", "admin<!--x-->-1.evil", "a comment"),
        ("cdata-in-the-name.xml", "admin<![CDATA[-1]]>.evil", "a CDATA section"),
        ("instruction-in-the-name.xml", "admin<?x y?>-1.evil", "a processing instruction"),
    ]:
        case(file, m, plain(name=inside), why + " in the signed name")
    case("comment-added-to-the-name.xml", m, plain(name="admin.evil").replace("admin.evil", "admin<!---->.evil"),
         "a comment that C14N does not see, added after signing")
    case("comment-anywhere.xml", m, GOOD.replace("<samlp:Status>", "<!--x--><samlp:Status>"), "a comment")
    case("stylesheet.xml", m, '<?xml-stylesheet type="text/xsl" href="https://evil.test/x"?>' + GOOD, "a stylesheet")
    case("undefined-entity.xml", m, GOOD.replace("alice-1", "&nbsp;"), "an entity of HTML")
    t = "saml-text"
    case("utf-16.xml", t, ('<?xml version="1.0" encoding="UTF-16"?>' + GOOD).encode("utf-16"), "UTF-16")
    case("utf-7.xml", t, '<?xml version="1.0" encoding="UTF-7"?>' + GOOD, "UTF-7, declared")
    case("latin-1.xml", t, '<?xml version="1.0" encoding="ISO-8859-1"?>' + GOOD, "Latin 1, declared")
    case("byte-order-mark.xml", t, "\ufeff" + GOOD, "a byte order mark")
    case("zero-byte.xml", t, GOOD.replace("alice-1", "admin\0-1"), "a zero byte in the name")
    case("no-utf-8.xml", t, GOOD.encode().replace(b"alice-1", b"\xff\xfe-1"), "no UTF-8")
    case("xml-1.1.xml", t, '<?xml version="1.1"?>' + GOOD, "XML 1.1")
    x = "saml-xml"
    case("cut-off.xml", x, GOOD[: len(GOOD) // 2], "half of it")
    case("two-roots.xml", x, GOOD + GOOD, "two documents")
    case("text-after-the-end.xml", x, GOOD + "admin", "text after the end")
    case("attribute-twice.xml", x, GOOD.replace(' ID="_assertion-1"', ' ID="_evil" ID="_assertion-1"'), "an attribute twice")
    case("empty.xml", x, "", "nothing")
    long = "saml-too-long"
    case("nested.xml", long, GOOD.replace("<samlp:Status>", "<x>" * 2000 + "</x>" * 2000 + "<samlp:Status>"), "2000 levels")
    case("many-elements.xml", long, GOOD.replace("<samlp:Status>", "<x/>" * 30000 + "<samlp:Status>"), "30000 elements")
    case("bomb-deflated.bin", t, deflate(b"<a>" + b" " * 50_000_000), "50 MB, compressed, on a binding without compression")
    case("good-deflated.bin", t, deflate(GOOD.encode()), "compressed on a binding without compression")
    case("not-base64.txt", "saml-encoding", "<samlp:Response/>", "not base64", kind="raw")


def deflate(data):
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def rules():
    audience = "<saml:AudienceRestriction>{}</saml:AudienceRestriction>"
    one = "<saml:Audience>{}</saml:Audience>"
    a = "saml-audience"
    case("audience-another.xml", a, plain(audience=audience.format(one.format("https://other.test/saml"))), "another audience")
    case("audience-none.xml", a, plain(audience=""), "no audience")
    case("audience-begins-alike.xml", a, plain(audience=audience.format(one.format(SP + ".evil.test"))), "begins alike")
    case("audience-of-two.xml", a, plain(audience=audience.format(one.format(SP) + one.format("https://other.test/saml"))),
         "one that another service could have passed on")
    case("audience-twice-restricted.xml", a, plain(audience=audience.format(one.format(SP)) +
         audience.format(one.format("https://other.test/saml"))), "two restrictions, one of them not met")
    c = "saml-confirmation"
    case("recipient-another.xml", c, plain(confirmation=confirm(recipient='Recipient="https://other.test/acs"')), "another recipient")
    case("recipient-none.xml", c, plain(confirmation=confirm(recipient="")), "no recipient")
    case("confirmed-for-another-request.xml", c, plain(confirmation=confirm(request='InResponseTo="_request-2"')), "another request")
    case("confirmed-for-no-request.xml", c, plain(confirmation=confirm(request="")), "no request")
    case("confirmation-ended.xml", c, plain(confirmation=confirm(end='NotOnOrAfter="2026-11-28T00:58:00Z"')), "ended")
    case("confirmation-without-an-end.xml", c, plain(confirmation=confirm(end="")), "without an end")
    case("confirmation-none.xml", c, plain(confirmation=" "), "not confirmed")
    case("holder-of-key.xml", c, plain(confirmation=confirm("urn:oasis:names:tc:SAML:2.0:cm:holder-of-key")), "another method")
    case("sender-vouches.xml", c, plain(confirmation=confirm("urn:oasis:names:tc:SAML:2.0:cm:sender-vouches")), "another method")
    case("two-confirmations.xml", c, plain(confirmation=confirm() + confirm(recipient='Recipient="https://other.test/acs"')),
         "one for here and one for elsewhere")
    d = "saml-destination"
    case("destination-another.xml", d, sign(response(assertion(), destination='Destination="https://other.test/acs"')), "elsewhere")
    case("destination-begins-alike.xml", d, sign(response(assertion(), destination=f'Destination="{ACS}/../x"')), "begins alike")
    r = "saml-in-response-to"
    case("answers-another-request.xml", r, sign(response(assertion(), request='InResponseTo="_request-2"')), "another request")
    case("answers-no-request.xml", r, sign(response(assertion(), request="")), "unsolicited")
    t = "saml-time"
    case("ended.xml", t, plain(conditions='NotBefore="2026-11-28T00:50:00Z" NotOnOrAfter="2026-11-28T00:59:00Z"'), "ended")
    case("not-yet.xml", t, plain(conditions='NotBefore="2026-11-28T01:02:00Z" NotOnOrAfter="2026-11-28T01:05:00Z"'), "not yet")
    case("without-an-end.xml", t, plain(conditions='NotBefore="2026-11-28T00:59:00Z"'), "without an end")
    authn = ('<saml:AuthnStatement AuthnInstant="2026-11-28T00:59:50Z" SessionIndex="session-1" '
             'SessionNotOnOrAfter="2026-11-28T00:58:00Z"><saml:AuthnContext><saml:AuthnContextClassRef>'
             f"{PASSWORD}</saml:AuthnContextClassRef></saml:AuthnContext></saml:AuthnStatement>")
    case("session-ended.xml", t, plain(authn=authn), "the provider's session has ended")
    case("signed-in-in-the-future.xml", t, plain(authn=authn.replace(
        "00:59:50Z", "01:30:00Z").replace("00:58:00Z", "02:00:00Z")), "signed in in the future")
    i = "saml-issuer"
    case("issuer-another.xml", i, plain(issuer="https://other.test/metadata"), "the assertion is from another issuer")
    case("issuer-of-the-response.xml", i, sign(response(assertion(), issuer="https://other.test/metadata")), "the response is")
    case("issuer-with-a-slash.xml", i, plain(issuer=IDP + "/"), "a slash more")
    for word in ["Responder", "AuthnFailed", "NoPassive"]:
        case(f"status-{word.lower()}.xml", "saml-status", sign(response(assertion(), status=word)), "nobody signed in")
    s = "saml-subject"
    case("name-transient.xml", s, plain(format="urn:oasis:names:tc:SAML:2.0:nameid-format:transient"), "a name for one session")
    case("name-email.xml", s, plain(format="urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress"), "an address, which may go to somebody else")
    case("name-unspecified.xml", s, plain(format="urn:oasis:names:tc:SAML:1.1:nameid-format:unspecified"), "a name of no format")
    case("name-too-long.xml", s, plain(name="a" * 300), "a name of 300 bytes")
    qualified = f'<saml:Subject><saml:NameID Format="{PERSISTENT}" {{}}>alice-1</saml:NameID>{confirm()}</saml:Subject>'
    case("name-of-another-provider.xml", s,
         plain(subject=qualified.format('NameQualifier="https://other.test/metadata"')), "a name of another provider's")
    case("name-for-another-service.xml", s,
         plain(subject=qualified.format('SPNameQualifier="https://other.test/saml"')), "a name for another service")
    case("statement-none.xml", "saml-structure", plain(authn=" "), "nobody has authenticated")
    case("statement-twice.xml", "saml-structure",
         GOOD.replace(part(GOOD, "AuthnStatement"), part(GOOD, "AuthnStatement") * 2), "two statements")
    case("name-none.xml", "saml-structure", plain(subject=f"<saml:Subject>{confirm()}</saml:Subject>"), "no name")
    case("subject-none.xml", "saml-structure", plain(subject=" "), "no subject")
    case("encrypted.xml", "saml-structure", response("<saml:EncryptedAssertion xmlns:saml=\"" + SAML + "\"><x/></saml:EncryptedAssertion>"),
         "an encrypted assertion")
    p = "saml-profile"
    case("version-1.1.xml", p, plain(version="1.1"), "another version")
    case("instant-of-nothing.xml", p, GOOD.replace('IssueInstant="2026-', 'IssueInstant="2026J', 1),
         "no instant: the library overflows on it")
    case("instant-with-an-offset.xml", p, plain(
        conditions='NotBefore="2026-11-28T00:59:00Z" NotOnOrAfter="2026-11-28T02:00:00+01:00"'), "an instant with an offset")
    case("condition-unknown.xml", p, plain(audience=audience.format(one.format(SP)) +
         '<saml:Condition xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:e="urn:evil" xsi:type="e:Only"/>'),
         "a condition that nobody knows")
    case("no-assertion.xml", "saml-structure", response(""), "no assertion")
    case("logout-as-a-response.xml", "saml-structure", f'<samlp:LogoutResponse xmlns:samlp="{SAMLP}" ID="_r"/>', "another message")
    good = "good-assertion-signed.xml"
    case(good, "no-pending", None, "the same answer twice", name="replayed-form", times=2)
    case(good, "sso-replay", None, "the same answer in a second sign-in that is made to wait for it",
         name="replayed-response", times=2, waiting="each")
    case(good, "saml-in-response-to", None, "the answer of another sign-in", name="stolen-response", request="_request-2")
    case(good, "no-pending", None, "the answer of another sign-in, by its relay state", name="stolen-relay-state", relay="relay-2")
    case(good, "sso-other-browser", None, "in another browser", name="other-browser", browser="other")
    case(good, "sso-ended", None, "after eleven minutes", name="late", later_s=660)
    case(good, "saml-confirmation", None, "after seven minutes: the assertion has ended", name="ended-meanwhile", later_s=420)


def logouts():
    def request(sign, name="alice-1", id="_logout-1"):
        return (f'<samlp:LogoutRequest xmlns:samlp="{SAMLP}" xmlns:saml="{SAML}" ID="{id}" Version="2.0" '
                f'IssueInstant="2026-11-28T01:00:00Z" Destination="https://zixt.test/saml/slo">'
                f'<saml:Issuer>{IDP}</saml:Issuer>{sign}<saml:NameID Format="{PERSISTENT}">{name}</saml:NameID>'
                f"<samlp:SessionIndex>session-1</samlp:SessionIndex></samlp:LogoutRequest>")

    good = sign(request(signature("_logout-1")), "LogoutRequest")
    more = {"kind": "logout"}
    case("logout-good.xml", "logged-out", good, "a LogoutRequest in a form", **more)
    case("logout-unsigned.xml", "saml-signature-missing", request(""), "no signature", **more)
    case("logout-changed.xml", "saml-signature", good.replace("alice-1", "bob-1"), "changed after signing", **more)
    case("logout-other-key.xml", "saml-signature", sign(request(signature("_logout-1")), "LogoutRequest", "evil"), "another key", **more)
    case("logout-sha1.xml", "saml-algorithm", sign(request(signature("_logout-1", DS + "rsa-sha1")), "LogoutRequest"),
         "RSA with SHA-1", **more)
    case("logout-two-names.xml", "saml-structure", good.replace("<saml:NameID", "<saml:NameID>bob-1</saml:NameID><saml:NameID", 1),
         "another name before the signed one", **more)
    case("logout-doctype.xml", "saml-markup", "<!DOCTYPE x>" + good, "a document type", **more)


def main():
    global GOOD
    os.makedirs("keys", exist_ok=True)
    keys()
    GOOD = plain()
    for group in (good, wrapping, signatures, markup, rules, logouts):
        group()
    with open("manifest.json", "w") as out:
        json.dump({"now": NOW, "sp": SP, "acs": ACS, "idp": IDP, "request": REQUEST, "relay": RELAY,
                   "cases": CASES}, out, indent=1)
        out.write("\n")
    print(len(CASES), "cases")


main()
