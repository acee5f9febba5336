-- One SMTP session as OpenDKIM's miltertest speaks it: two messages, an abort, a refusal.
-- Globals: socket. What is expected is told to the test by mt.echo before an error.
local function check(ok, what)
	if not ok then
		mt.echo("failed: " .. what)
		error(what)
	end
end

local conn = mt.connect(socket, 40, 0.05)
check(conn ~= nil, "connect")
check(mt.negotiate(conn, nil, nil, nil) == nil, "negotiate")

mt.macro(conn, SMFIC_CONNECT, "j", "mx.example.org", "{daemon_name}", "MTA")
check(mt.conninfo(conn, "client.example.net", "192.0.2.1") == nil, "conninfo")
check(mt.helo(conn, "client.example.net") == nil, "helo")

local function message(subject)
	mt.macro(conn, SMFIC_MAIL, "i", "Q" .. subject)
	check(mt.mailfrom(conn, "<s@example.net>") == nil, "mailfrom")
	check(mt.getreply(conn) == SMFIR_CONTINUE, "reply to MAIL")
	check(mt.rcptto(conn, "<one@example.org>") == nil, "rcptto")
	check(mt.getreply(conn) == SMFIR_CONTINUE, "reply to RCPT")
	check(mt.rcptto(conn, "<out@example.org>") == nil, "rcptto")
	check(mt.getreply(conn) == SMFIR_CONTINUE, "second reply to RCPT")
	check(mt.header(conn, "Subject", subject) == nil, "header")
	check(mt.eoh(conn) == nil, "eoh")
	check(mt.bodystring(conn, "body\r\n") == nil, "body")
	check(mt.eom(conn) == nil, "eom")
	return mt.getreply(conn)
end

check(message("clean") == SMFIR_ACCEPT, "verdict on the first message")
check(mt.eom_check(conn, MT_HDRINSERT, "X-Queue-ID", " Qclean"), "field inserted")
check(mt.eom_check(conn, MT_HDRDELETE, "X-Forged"), "field deleted")
check(mt.eom_check(conn, MT_RCPTDELETE, "<out@example.org>"), "recipient removed")

check(message("bad") == SMFIR_REPLYCODE, "verdict on the second message")
check(mt.eom_check(conn, MT_SMTPREPLY, "550", "5.7.1", "refused"), "SMTP reply")
check(not mt.eom_check(conn, MT_HDRINSERT, "X-Queue-ID"), "no change beside a refusal")

mt.abort(conn)
check(message("again") == SMFIR_ACCEPT, "verdict after ABORT")
check(mt.eom_check(conn, MT_HDRINSERT, "X-Queue-ID", " Qagain"), "macros of its own")
mt.disconnect(conn)
