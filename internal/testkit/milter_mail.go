package testkit

import (
	"bytes"
	"context"
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// transaction is one message on its way through a MilterClient.
type transaction struct {
	c      *MilterClient
	m      *MilterMail
	result MilterResult
	rcpts  int // for which a RCPT was sent
	taken  int // that the filter didn't refuse
}

func (t *transaction) run(ctx context.Context) error {
	c := t.c
	if !c.told {
		if err := t.connect(); err != nil {
			return err
		}
		c.told = true
	}
	if c.settled != nil {
		t.result.Reply = *c.settled
		return nil
	}
	done, err := t.envelope()
	if err == nil && !done {
		err = t.content(ctx)
	}
	if err == nil && c.options.MTA == PostfixMTA && !c.options.NoAbort {
		err = c.Abort()
	}
	return err
}

// step sends one command with its macros and tells whether the filter settled
// the message with its answer.
func (t *transaction) step(stage byte, not, noReply uint32, payload []byte) (done bool, err error) {
	if t.c.Steps&not != 0 {
		return false, nil
	}
	t.result.Stage = stage
	t.macros(stage)
	t.c.write(stage, payload)
	timeout := t.c.options.CommandTimeout
	if strings.IndexByte("LNBE", stage) >= 0 {
		timeout = t.c.options.ContentTimeout
	}
	reply, err := t.c.reply(noReply, timeout, nil)
	if err != nil {
		return false, err
	}
	if reply.refuses() || reply.Code == 'a' || reply.Code == 'd' {
		t.result.Reply = reply
		return true, nil
	}
	return false, nil
}

// connect tells the client, once a connection.
func (t *transaction) connect() error {
	for _, next := range []struct {
		stage        byte
		not, noReply uint32
		payload      []byte
	}{
		{'C', StepNoConnect, StepNoConnectReply, t.client()},
		{'H', StepNoHelo, StepNoHeloReply, append([]byte(orString(t.m.Helo, t.helo())), 0)},
	} {
		done, err := t.step(next.stage, next.not, next.noReply, next.payload)
		if err != nil {
			return err
		}
		if done {
			t.c.settled = &t.result.Reply
			return nil
		}
	}
	return nil
}

func (t *transaction) helo() string {
	if t.m.ClientAddr.IsValid() {
		return "client.example.net"
	}
	return "localhost"
}

// client is the payload of CONNECT.
func (t *transaction) client() []byte {
	m := t.m
	addr, name := m.ClientAddr, m.ClientName
	if !addr.IsValid() {
		if t.c.options.MTA == SendmailMTA {
			return append([]byte(orString(name, "localhost")), 0, 'U')
		}
		addr, name = netip.AddrFrom4([4]byte{127, 0, 0, 1}), orString(name, "localhost")
	}
	p := append([]byte(orString(name, "unknown")), 0)
	text := addr.String()
	if addr.Is4() {
		p = append(p, '4')
	} else {
		p = append(p, '6')
		if t.c.options.MTA == SendmailMTA {
			text = sendmailIPv6(addr)
		}
	}
	p = binary.BigEndian.AppendUint16(p, m.ClientPort)
	return append(append(p, text...), 0)
}

// sendmailIPv6 writes an address as Sendmail does: IPv6:0:0:0:0:0:0:0:1.
func sendmailIPv6(a netip.Addr) string {
	groups := strings.Split(a.StringExpanded(), ":")
	for i, g := range groups {
		if groups[i] = strings.TrimLeft(g, "0"); groups[i] == "" {
			groups[i] = "0"
		}
	}
	return "IPv6:" + strings.Join(groups, ":")
}

// envelope sends MAIL, each RCPT and DATA.
func (t *transaction) envelope() (done bool, err error) {
	if done, err := t.step('M', StepNoMail, StepNoMailReply, t.path(t.m.Sender)); done || err != nil {
		return done, err
	}
	for _, recipient := range t.m.Recipients {
		t.rcpts++
		done, err := t.step('R', StepNoRcpt, StepNoRcptReply, t.path(recipient))
		if err != nil {
			return false, err
		}
		reply := t.result.Reply
		if !done && t.c.Steps&(StepNoRcpt|StepNoRcptReply) == 0 {
			reply.Code = 'c'
		}
		t.result.Recipients = append(t.result.Recipients, reply)
		if done && !reply.refuses() { // accept or discard: the whole message
			return true, nil
		}
		if !done {
			t.taken++
		}
		t.result.Reply = MilterReply{}
	}
	if t.taken == 0 {
		if n := len(t.result.Recipients); n > 0 {
			t.result.Reply = t.result.Recipients[n-1]
		}
		return true, nil
	}
	if t.c.Version < 4 {
		return false, nil
	}
	return t.step('T', StepNoData, StepNoDataReply, nil)
}

// path is the payload of MAIL and RCPT: the path in brackets and its arguments.
// Postfix's local submission leaves the brackets out.
func (t *transaction) path(s string) []byte {
	path, args, _ := strings.Cut(s, " ")
	p := t.c.scratch[:0]
	if path == "" && t.c.options.MTA == PostfixMTA && t.local() {
		p = append(p, 0)
	} else if t.c.options.MTA == PostfixMTA && t.local() {
		p = append(append(p, path...), 0)
	} else {
		p = append(append(append(p, '<'), path...), '>', 0)
	}
	for arg := range strings.FieldsSeq(args) {
		p = append(append(p, arg...), 0)
	}
	t.c.scratch = p
	return p
}

func (t *transaction) local() bool { return !t.m.ClientAddr.IsValid() }

// content sends the header, the body and the end of message.
func (t *transaction) content(ctx context.Context) error {
	header, body := splitMessage(t.m.Data)
	for field := range fields(header) {
		if t.c.Steps&StepNoHeaders != 0 {
			break
		}
		if done, err := t.step('L', StepNoHeaders, StepNoHeaderReply, t.field(field)); done || err != nil {
			return err
		}
	}
	if done, err := t.step('N', StepNoEOH, StepNoEOHReply, nil); done || err != nil {
		return err
	}
	if done, err := t.body(ctx, body); done || err != nil {
		return err
	}
	t.result.Stage = 'E'
	t.macros('E')
	t.c.write('E', nil)
	handed := time.Now()
	reply, err := t.c.reply(0, t.c.options.ContentTimeout, &t.result)
	t.result.Reply, t.result.Waited = reply, time.Since(handed)
	return err
}

// body sends the body in frames until it ends or the filter says skip.
func (t *transaction) body(ctx context.Context, body []byte) (done bool, err error) {
	c := t.c
	size := t.m.ChunkBytes
	if size <= 0 || size > 65535 {
		size = 65535
	}
	for len(body) > 0 && c.Steps&StepNoBody == 0 {
		chunk := body[:min(size, len(body))]
		body = body[len(chunk):]
		t.result.Stage = 'B'
		t.macros('B')
		c.write('B', chunk)
		reply, err := c.reply(StepNoBodyReply, c.options.ContentTimeout, nil)
		if err != nil {
			return false, err
		}
		switch {
		case reply.Code == 's':
			return false, nil
		case reply.refuses() || reply.Code == 'a' || reply.Code == 'd':
			t.result.Reply = reply
			return true, nil
		}
		if t.m.ChunkDelay > 0 {
			if err := c.flush(c.options.ContentTimeout); err != nil {
				return false, err
			}
			select {
			case <-time.After(t.m.ChunkDelay):
			case <-ctx.Done():
				return false, ctx.Err()
			}
		}
	}
	return false, nil
}

// field is the payload of a header field: name and value, lines parted by LF.
func (t *transaction) field(raw []byte) []byte {
	name, value, _ := bytes.Cut(raw, []byte(":"))
	if t.c.Steps&StepHeaderLeadSpace == 0 {
		value = bytes.TrimPrefix(value, []byte(" "))
	}
	p := append(append(t.c.scratch[:0], bytes.TrimRight(name, " \t")...), 0)
	for line := range bytes.Lines(value) {
		p = append(p, bytes.TrimRight(line, "\r\n")...)
		if bytes.HasSuffix(line, []byte("\n")) {
			p = append(p, '\n')
		}
	}
	p = append(bytes.TrimSuffix(p, []byte("\n")), 0)
	t.c.scratch = p
	return p
}

// macros sends what the MTA tells before a command, or what the filter asked for.
func (t *transaction) macros(stage byte) {
	if names, ok := t.c.symbols[stage]; ok {
		t.writeMacros(stage, names)
		return
	}
	var names []string
	if t.c.options.MTA == SendmailMTA {
		names = sendmailMacros[stage]
	} else {
		names = postfixMacros[stage]
		if stage == 'R' && t.rcpts < 2 && !t.local() {
			names = names[1:] // i comes with the second recipient
		}
		if stage == 'M' && t.local() {
			names = slices.Concat([]string{"i"}, names)
		}
	}
	if names != nil {
		t.writeMacros(stage, names)
	}
}

func (t *transaction) writeMacros(stage byte, names []string) {
	p := append(t.c.w.AvailableBuffer(), 0, 0, 0, 0, 'D', stage)
	for _, name := range names {
		if value := t.macro(name); value != "" {
			p = append(append(append(append(p, name...), 0), value...), 0)
		}
	}
	binary.BigEndian.PutUint32(p, uint32(len(p)-4))
	_, _ = t.c.w.Write(p) // shows at flush
}

// The macros that are sent by default (facts of Postfix 3.7.11 and Sendmail
// 8.17.1); those without a value are left out.
var (
	postfixMacros = map[byte][]string{
		'C': {"j", "{daemon_name}", "{daemon_addr}", "v", "_"},
		'H': {"{tls_version}", "{cipher}", "{cipher_bits}"}, // sent even if empty
		'M': {"{auth_type}", "{auth_authen}", "{mail_addr}", "{mail_host}", "{mail_mailer}"},
		'R': {"i", "{rcpt_addr}", "{rcpt_host}", "{rcpt_mailer}"},
		'T': {"i"}, 'L': {"i"}, 'N': {"i"}, 'B': {"i"}, 'E': {"i"},
	}
	sendmailMacros = map[byte][]string{
		'C': {"j", "_", "{daemon_name}", "{if_name}"},
		'H': {"{tls_version}", "{cipher}", "{cipher_bits}"},
		'M': {"i", "{auth_type}", "{auth_authen}", "{mail_mailer}", "{mail_host}", "{mail_addr}"},
		'R': {"{rcpt_mailer}", "{rcpt_host}", "{rcpt_addr}"},
		'E': {"{msg_id}"},
	}
)

func (t *transaction) macro(name string) string {
	m := t.m
	switch strings.Trim(name, "{}") {
	case "j":
		return "mx.example.org"
	case "v":
		if t.c.options.MTA == PostfixMTA {
			return "Postfix 3.7.11"
		}
		return "8.17.1"
	case "_":
		return orString(m.ClientName, "unknown") + " [" + m.ClientAddr.String() + "]"
	case "i":
		return m.QueueID
	case "daemon_name":
		if t.c.options.MTA == SendmailMTA {
			return orString(m.Daemon, "MTA")
		}
		return orString(m.Daemon, "mx.example.org")
	case "daemon_addr":
		return "192.0.2.25"
	case "if_name":
		return "mx.example.org"
	case "auth_type":
		if m.Login != "" {
			return "PLAIN"
		}
	case "auth_authen":
		return m.Login
	case "msg_id":
		header, _ := splitMessage(m.Data)
		if ids := headerFields(string(header), "Message-Id"); len(ids) > 0 {
			return ids[0]
		}
	case "mail_addr":
		path, _, _ := strings.Cut(m.Sender, " ")
		return path
	case "rcpt_addr":
		if t.rcpts > 0 {
			path, _, _ := strings.Cut(m.Recipients[t.rcpts-1], " ")
			return path
		}
	case "mail_mailer", "rcpt_mailer":
		return "relay"
	case "mail_host", "rcpt_host":
		return "mx.example.org"
	case "client_addr":
		if m.ClientAddr.IsValid() {
			return m.ClientAddr.String()
		}
	case "client_name":
		return m.ClientName
	}
	return ""
}
