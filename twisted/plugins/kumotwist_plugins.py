"""What C{twistd} finds: instances only; the modules named here are imported when they are used."""

from twisted.application.service import ServiceMaker

kumo = ServiceMaker(
    "kumo",
    "kumotwist.tap.kumo",
    "A mail transfer agent whose mail leaves through forward proxies.",
    "kumo",
)

kumoproxy = ServiceMaker(
    "kumoproxy",
    "kumotwist.tap.kumoproxy",
    "A SOCKS5 proxy that lets its clients choose the source address.",
    "kumoproxy",
)

kumosink = ServiceMaker(
    "kumosink",
    "kumotwist.tap.kumosink",
    "An SMTP sink for trials: takes everything, keeps nothing.",
    "kumosink",
)
