"""A mail server for tests, made of aiosmtpd: smtp.py plain|starttls|tls REFUSALS [CERTIFICATE KEY]

Says its port, then a line of JSON for each mail that is offered to it. The first REFUSALS it refuses for the time being. With a
certificate it wants a login: pgweir, mail-secret. It ends when its input does."""

import asyncio
import json
import os
import ssl
import sys
import threading
from email import message_from_bytes, policy

from aiosmtpd.smtp import SMTP, AuthResult


class Box:
    def __init__(self, refusals):
        self.refusals = refusals

    async def handle_DATA(self, server, session, envelope):
        mail = message_from_bytes(envelope.content, policy=policy.default)
        said = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "encrypted": session.ssl is not None or server.transport.get_extra_info("sslcontext") is not None,
            "user": session.auth_data.login.decode() if session.authenticated else None,
            "head": {name: str(value) for name, value in mail.items()},
            "text": mail.get_content(),
        }
        print(json.dumps(said), flush=True)
        self.refusals -= 1
        return "451 4.3.0 later" if self.refusals >= 0 else "250 2.0.0 taken"


def authenticate(server, session, envelope, mechanism, data):
    known = (data.login, data.password) == (b"pgweir", b"mail-secret")
    # "Handled" would be that the client has been told.
    return AuthResult(success=known, handled=False, auth_data=data)


async def main(mode, refusals, *files):
    context, options = None, {"hostname": "localhost", "ident": "test"}
    if files:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*files)
        options |= {"authenticator": authenticate, "auth_required": True, "auth_require_tls": mode == "starttls"}
    if mode == "starttls":
        options |= {"tls_context": context, "require_starttls": True}
    box = Box(int(refusals))
    implicit = context if mode == "tls" else None
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(box, loop=loop, **options), "127.0.0.1", 0, ssl=implicit)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
asyncio.run(main(*sys.argv[1:]))
