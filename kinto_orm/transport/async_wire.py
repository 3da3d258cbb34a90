"""HTTP by ``httpx``: for event loops, without threads. One pool of connections for each loop.

It is httpx's transport without its client: so nothing here follows a redirect, reads the environment or netrc, keeps a
cookie, decodes a body or writes URLs to a log.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from asyncio import AbstractEventLoop
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, TypeAlias, cast

import requests
from requests import PreparedRequest
from requests.utils import select_proxy
from urllib3.util.ssl_ import create_urllib3_context

from kinto_orm.errors import ConfigurationError, KintoError, MissingExtraError
from kinto_orm.protocol.messages import Request, Response
from kinto_orm.transport.async_pool import Pool
from kinto_orm.transport.auth import Secret, is_immediate
from kinto_orm.transport.bodies import Body, decoder_of
from kinto_orm.transport.httpx_failures import Progress, translate_httpx
from kinto_orm.transport.httpx_messages import HOW_TO_DO_WITHOUT, as_httpx, has_more, headers_of
from kinto_orm.transport.prepare import Limits, Preparer, Verify, WireOptions, way_out
from kinto_orm.transport.requests_errors import FOREIGN_ERRORS, translate
from kinto_orm.transport.token_refresh import renewed

if TYPE_CHECKING:
    import httpx

Answered: TypeAlias = tuple[int, dict[str, str], PreparedRequest]
"""Status and headers of an answer, and the request as it was sent."""


class AsyncWire:
    """Sends by httpx, in whichever event loop runs. Raises ``ConfigurationError`` for what httpx cannot carry."""

    def __init__(self, options: WireOptions) -> None:
        self._options = options
        self._preparer = Preparer(options, sender=_sender())
        with requests.Session() as session:
            session.trust_env = options.trust_env
            verify, proxies = way_out(session, options)
        proxy = select_proxy(options.server_url, proxies) or ""
        proxy = f"http://{proxy}" if proxy and "://" not in proxy else proxy
        is_tls = any(url.lower().startswith("https:") for url in (options.server_url, proxy))
        # Reading the certificates takes a while.
        self._tls = _tls_context(verify, options) if is_tls else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._tls_of_proxy = self._tls if proxy.lower().startswith("https:") else None
        self._proxy = Secret(proxy)  # it may hold a password
        self._pools: dict[AbstractEventLoop, Pool] = {}
        self._pid = os.getpid()
        self._of_parent: list[dict[AbstractEventLoop, Pool]] = []
        self._make_transport()  # it says now what it cannot do
        with suppress(ImportError):
            import_module("anyio._backends._asyncio")  # or the first request imports it, and the loop stands still

    @property
    def holds_sockets(self) -> bool:
        """Whether an event loop of this process has connections that nobody released."""
        return bool(self._pools) and self._pid == os.getpid()

    async def pool(self) -> Pool:
        """The pool of the event loop that runs."""
        if self._pid != os.getpid():
            # Kept, because a child that collected its parent's sockets would warn that they were not closed.
            self._of_parent.append(self._pools)
            self._pools, self._pid = {}, os.getpid()
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        if pool is None:
            self._forget_closed()
            pool = self._pools[loop] = Pool(self._make_transport, partial(self._forget, loop))
            await pool.open()
        return pool

    def _forget(self, loop: AbstractEventLoop, pool: Pool) -> None:
        if self._pools.get(loop) is pool:
            del self._pools[loop]

    async def ask(self, transport: httpx.AsyncHTTPTransport, request: Request, limits: Limits, body: Body) -> Answered:
        """Status and headers of the answer, whose body is put into ``body``, and what was sent.

        Where it is cancelled, the connection is closed at once. Raises what ``HttpTransport.send`` does.
        """
        progress = Progress()
        try:
            async with asyncio.timeout(limits.whole):
                return await self._exchange(transport, request, limits, body, progress)
        except KintoError:
            raise
        except Exception as error:  # nobody says what comes through from the libraries below httpx
            if not progress.is_ready and not isinstance(error, FOREIGN_ERRORS):
                raise  # a bug of the user's auth object
            is_of_auth = not progress.is_ready and not isinstance(error, TimeoutError)
            failure = translate(error, body.name) if is_of_auth else translate_httpx(error, body.name, progress)
        raise failure  # out here, so that the error of a library, which may show secrets, does not become its context

    async def _exchange(
        self, transport: httpx.AsyncHTTPTransport, request: Request, limits: Limits, body: Body, progress: Progress
    ) -> Answered:
        prepared = await self._prepared(request)
        progress.is_ready = True
        try:
            answer = await transport.handle_async_request(as_httpx(prepared, limits, progress))
        except BaseException:
            await progress.hang_up()
            raise
        stream = cast("httpx.AsyncByteStream", answer.stream)
        try:
            progress.has_head = True
            headers = headers_of(answer)
            decoder = decoder_of(headers.get("content-encoding", ""))
            async for chunk in stream:
                for piece in decoder.feed(chunk):
                    body.add(piece)
                    await asyncio.sleep(0)  # a small chunk may unfold to a large piece: let the others have their turn
            body.add(decoder.end())
            if has_more(answer):
                await answer.extensions["network_stream"].aclose()
        finally:
            await stream.aclose()
        return answer.status_code, headers, prepared

    async def renewed(self, request: Request, response: Response, sent: PreparedRequest) -> Response:
        """Like :func:`kinto_orm.transport.token_refresh.renewed`; the auth object may take its time."""
        auth = self._options.auth
        if not hasattr(auth, "renew"):
            return response
        return await asyncio.to_thread(renewed, request, response, auth, sent)

    async def _prepared(self, request: Request) -> PreparedRequest:
        if is_immediate(self._options.auth):
            return self._preparer.prepare(request)
        prepared = await asyncio.to_thread(self._preparer.prepare, request)
        if prepared.hooks.get("response"):
            raise ConfigurationError(
                f"Nothing was sent: {type(self._options.auth).__name__} wants to see the answer, which only requests "
                f"can show it. {HOW_TO_DO_WITHOUT}"
            )
        return prepared

    def release(self) -> None:
        """Closes idle connections, soon; where their loop does not run, when it does or ends."""
        for loop, pool in list(self._pools.items()):
            self._pools.pop(loop, None)
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(pool.leave_soon)

    async def arelease(self) -> None:
        """Closes idle connections: those of the loop that runs now, those of others soon."""
        own = self._pools.pop(asyncio.get_running_loop(), None)
        self.release()
        if own is not None:
            await own.leave()

    def _forget_closed(self) -> None:
        for loop in list(self._pools):
            if loop.is_closed():  # without shutdown_asyncgens()
                self._pools.pop(loop, None)

    def _make_transport(self) -> httpx.AsyncHTTPTransport:
        import httpx

        proxy = self._proxy.reveal()
        try:
            return httpx.AsyncHTTPTransport(
                verify=self._tls,
                trust_env=False,
                # One request has it at a time, so nobody waits here.
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=1),
                proxy=httpx.Proxy(proxy, ssl_context=self._tls_of_proxy) if proxy else None,
            )
        except ImportError as error:
            raise MissingExtraError(f"{error} Or: {HOW_TO_DO_WITHOUT}", name="socksio") from None
        except (ValueError, httpx.InvalidURL):
            pass  # raised again below: the error, which holds the password of the proxy, must not become its context
        raise ConfigurationError("The URL of the proxy is none that httpx takes: it is as in http://proxy:3128.")


def _sender() -> str:
    try:
        import httpx
    except ImportError as error:
        raise MissingExtraError(
            f"httpx is not installed ({error}): pip install 'kinto-orm[async]'. Or: {HOW_TO_DO_WITHOUT}", name="httpx"
        ) from error
    return f"httpx/{httpx.__version__}"


def _tls_context(verify: Verify, options: WireOptions) -> ssl.SSLContext:
    """As ``requests`` would verify the server, and show it the client's certificate."""
    context = create_urllib3_context()
    if verify is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    cert = options.cert
    try:
        if verify is not False:
            authorities = requests.utils.DEFAULT_CA_BUNDLE_PATH if verify is True else verify
            is_folder = os.path.isdir(authorities)
            context.load_verify_locations(**{"capath" if is_folder else "cafile": authorities})
        if cert is not None:
            context.load_cert_chain(*(cert if isinstance(cert, tuple) else (cert,)))
    except OSError as error:  # also: ssl.SSLError
        raise ConfigurationError(f"verify or cert holds no certificates that can be used: {error}.") from error
    return context
