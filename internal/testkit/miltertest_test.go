package testkit

import (
	"strings"
	"testing"
)

func TestRunMiltertest(t *testing.T) {
	filter := startRecorder(t, "tcp", "127.0.0.1:0", 0, map[byte][]string{'E': {"y550 5.7.1 no\x00"}})
	port := filter.addr[strings.LastIndexByte(filter.addr, ':')+1:]
	const script = `
conn = mt.connect(socket, 40, 0.05)
if conn == nil then error("no connection") end
if mt.conninfo(conn, "out.example.net", "192.0.2.10") ~= nil then error("conninfo") end
if mt.helo(conn, "out.example.net") ~= nil then error("helo") end
if mt.mailfrom(conn, "<a@example.net>") ~= nil then error("mailfrom") end
if mt.rcptto(conn, "<b@example.org>") ~= nil then error("rcptto") end
if mt.header(conn, "Subject", "x") ~= nil then error("header") end
if mt.eoh(conn) ~= nil then error("eoh") end
if mt.bodystring(conn, "hello\r\n") ~= nil then error("body") end
if mt.eom(conn) ~= nil then error("eom") end
if mt.getreply(conn) ~= WANTED then mt.echo("reply " .. mt.getreply(conn)) error("reply") end
mt.disconnect(conn)
`
	for wanted, fails := range map[string]bool{"SMFIR_REPLYCODE": false, "SMFIR_ACCEPT": true} {
		n := &note{}
		RunMiltertest(n, "inet:"+port+"@127.0.0.1", strings.Replace(script, "WANTED", wanted, 1))
		if n.failed != fails {
			t.Errorf("%s: failed %v, want %v: %q", wanted, n.failed, fails, n.logs)
		}
		for _, f := range n.cleanups {
			n.failed = false // nothing to keep
			f()
		}
	}
}
