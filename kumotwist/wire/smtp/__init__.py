"""SMTP and ESMTP (RFC 5321) as machines without I/O: replies, commands, data, both sides."""
