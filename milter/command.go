package milter

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strings"

	gomilter "github.com/emersion/go-milter"

	"sluice/internal/envelope"
)

// command is what one frame of the MTA says. Which members are set depends on the code.
type command struct {
	code gomilter.Code
	// client is what CONNECT says (Name, Addr, Port).
	client envelope.Client
	// text is HELO's name, and the path of MAIL and RCPT as it came.
	text string
	// parameters are the ESMTP arguments of MAIL and RCPT.
	parameters []envelope.Parameter
	// name and value are a header field's, its value with every byte that came.
	name, value string
	// chunk is a piece of the body, valid until the next command. The end of message may
	// bring the last one.
	chunk []byte
}

// parseCommand reads a frame. It reports false if the frame isn't of its code's form.
func parseCommand(code gomilter.Code, data []byte) (command, bool) {
	cmd := command{code: code}
	ok := true
	switch code {
	case gomilter.CodeConn:
		cmd.client, ok = parseConnect(data)
	case gomilter.CodeHelo:
		name, _, _ := bytes.Cut(data, []byte{0})
		cmd.text = string(name)
	case gomilter.CodeMail, gomilter.CodeRcpt:
		cmd.text, cmd.parameters, ok = parsePath(data)
	case gomilter.CodeHeader:
		cmd.name, cmd.value = parseField(data)
	case gomilter.CodeBody, gomilter.CodeEOB:
		cmd.chunk = data
	}
	return cmd, ok
}

// parseConnect reads CONNECT: host name, NUL, family, and but for the unknown family port
// and address. An address that can't be read is none at all.
func parseConnect(data []byte) (envelope.Client, bool) {
	name, rest, ok := bytes.Cut(data, []byte{0})
	if !ok || len(rest) == 0 {
		return envelope.Client{}, false
	}
	c := envelope.Client{Name: string(name)}
	family, rest := rest[0], rest[1:]
	switch gomilter.ProtoFamily(family) {
	case gomilter.FamilyInet, gomilter.FamilyInet6:
	case gomilter.FamilyUnknown, gomilter.FamilyUnix:
		return c, true
	default:
		return envelope.Client{}, false
	}
	if len(rest) < 2 {
		return envelope.Client{}, false
	}
	c.Port = binary.BigEndian.Uint16(rest)
	address, _, _ := bytes.Cut(rest[2:], []byte{0})
	c.Addr = parseAddr(string(address))
	return c, true
}

// parseAddr reads an IP address; Sendmail puts "IPv6:" before one of version 6. The
// zero Addr is returned for what isn't one ("unknown").
func parseAddr(s string) netip.Addr {
	const prefix = "IPv6:"
	if len(s) > len(prefix) && strings.EqualFold(s[:len(prefix)], prefix) {
		s = s[len(prefix):]
	}
	addr, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}
	}
	return addr.Unmap().WithZone("")
}

// parsePath reads MAIL or RCPT: the path, then the ESMTP arguments, each ended by NUL.
func parsePath(data []byte) (string, []envelope.Parameter, bool) {
	if len(data) == 0 {
		return "", nil, false
	}
	path, rest, _ := bytes.Cut(data, []byte{0})
	var ps []envelope.Parameter
	for len(rest) > 0 {
		var arg []byte
		arg, rest, _ = bytes.Cut(rest, []byte{0})
		if len(arg) == 0 {
			continue
		}
		name, value, _ := strings.Cut(string(arg), "=")
		ps = append(ps, envelope.Parameter{Name: name, Value: value})
	}
	return string(path), ps, true
}

// parseField reads a header field: name, NUL, value, NUL. Whatever else came is kept, so
// that no byte of the message goes unseen: a NUL inside stays in the value, an absent
// value is empty, and so may be a name.
func parseField(data []byte) (name, value string) {
	n, v, _ := bytes.Cut(data, []byte{0})
	if len(v) > 0 && v[len(v)-1] == 0 {
		v = v[:len(v)-1]
	}
	return string(n), string(v)
}
