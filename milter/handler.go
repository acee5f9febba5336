package milter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/textproto"
	"runtime/debug"
	"strings"
	"time"

	gomilter "github.com/emersion/go-milter"

	"sluice/internal/envelope"
	"sluice/internal/mail"
	"sluice/policy"
)

// handler is one connection's state. The library calls it, always from one goroutine; the
// data of each command are in conn.cmd.
type handler struct {
	c  *conn
	o  *Options
	id string // session ID
	// ctx ends with the session.
	ctx context.Context
	// admit reports whether the connection may have mail filtered now, or is one too
	// many.
	admit func() bool
	// skipped is told how many changes of header fields the MTA didn't permit.
	skipped func(queueID string, n int)
	log     *slog.Logger
	client  envelope.Client
	m       *message // nil between messages
}

var _ gomilter.Milter = (*handler)(nil)

// message is a message under way.
type message struct {
	env    *envelope.Envelope
	ctx    context.Context
	cancel context.CancelFunc
	// msg belongs to the session until there is a run, then to the run.
	msg *mail.Message
	run Run
	// headerDone: the empty line has been written.
	headerDone bool
	// failed is the reply that the end of message will get whatever else comes; the
	// rest is swallowed. Code 0: none.
	failed policy.Reply
	// fields counts header fields, bytes what sender and recipients take.
	fields, bytes int
}

// Replies that sessions give themselves.
func (h *handler) refusal(code int, enhanced, text string) policy.Reply {
	return policy.Reply{Code: code, Enhanced: enhanced, Text: text + " (id " + h.id + ")"}
}

func (h *handler) unavailable() policy.Reply {
	return h.refusal(451, "4.3.0", "Content filter is not available, try again later")
}

// guard runs a callback's body. It turns a panic into a failed message, and the outcome
// into the library's reply, nil where none is due.
func (h *handler) guard(f func() gomilter.Response) (resp gomilter.Response, err error) {
	defer func() {
		if v := recover(); v != nil {
			h.panicked(v)
			h.fail(failedInternal, h.unavailable(), "panic")
			resp = h.refuse()
		}
		if !h.c.due {
			resp = nil
		}
	}()
	return f(), nil
}

// refuse is the reply at a command that comes before the end of a failed message: for
// local submission always continue, since a refusal there leaves the mail in maildrop for
// ever.
func (h *handler) refuse() gomilter.Response {
	switch {
	case h.m != nil && h.m.env.Local && h.c.cmd.code != gomilter.CodeEOB:
		return gomilter.RespContinue
	case h.m != nil && h.m.failed.Code != 0:
		return customReply(h.m.failed)
	}
	return customReply(h.unavailable())
}

func (h *handler) panicked(v any) {
	h.o.Panicked()
	h.log.Error("panic in a milter session", "queue_id", h.c.macros.get("i"), "err", fmt.Sprint(v), "stack", string(debug.Stack()))
}

// protect calls into the gateway where nothing can be answered any more.
func (h *handler) protect(f func()) {
	defer func() {
		if v := recover(); v != nil {
			h.panicked(v)
		}
	}()
	f()
}

// Connect implements gomilter.Milter.
func (h *handler) Connect(string, string, uint16, net.IP, *gomilter.Modifier) (gomilter.Response, error) {
	return h.guard(func() gomilter.Response {
		h.abandon("new connection")
		h.client = h.c.cmd.client
		if r := h.c.macros.get("{client_resolve}"); r != "" && r != "OK" || strings.HasPrefix(h.client.Name, "[") {
			h.client.Name = "unknown" // Sendmail gives the unverified name, or the address
		}
		return gomilter.RespContinue
	})
}

// Helo implements gomilter.Milter.
func (h *handler) Helo(string, *gomilter.Modifier) (gomilter.Response, error) {
	return h.guard(func() gomilter.Response {
		h.abandon("new HELO")
		h.client.Helo = h.c.cmd.text
		return gomilter.RespContinue
	})
}

// MailFrom implements gomilter.Milter. It begins a message, or refuses it.
func (h *handler) MailFrom(string, *gomilter.Modifier) (gomilter.Response, error) {
	return h.guard(func() gomilter.Response {
		h.abandon("new MAIL FROM")
		env := h.newEnvelope()
		m := &message{env: env, bytes: cost(&h.c.cmd)}
		m.ctx, m.cancel = context.WithCancel(h.ctx)
		h.m = m
		h.c.setOpen(true)
		h.begin(m)
		if m.failed.Code == 0 || env.Local {
			return gomilter.RespContinue
		}
		resp := h.refuse()
		h.forget()
		return resp
	})
}

// begin asks for admission and for a message to write to.
func (h *handler) begin(m *message) {
	if !h.admit() {
		h.fail(failedOverLimit, h.refusal(451, "4.3.2", "Too many connections, try again later"), "too many connections")
		return
	}
	msg, err := h.o.Gateway.Begin(m.env)
	if err == nil && msg == nil {
		err = errors.New("gateway gave no message")
	}
	if err != nil {
		h.written(err)
		return
	}
	m.msg = msg
}

func (h *handler) newEnvelope() *envelope.Envelope {
	macros := &h.c.macros
	env := &envelope.Envelope{
		SessionID: h.id,
		QueueID:   macros.get("i"),
		Daemon:    macros.get("{daemon_name}"),
		Host:      macros.get("j"),
		MTA:       macros.get("v"),
		Login:     macros.get("{auth_authen}"),
		// SenderVerified stays false until an MTA is found that tells it.
		Client:   h.client,
		Sender:   envelope.Sender{Address: envelope.Parse(h.c.cmd.text), Parameters: h.c.cmd.parameters},
		Received: time.Now(),
	}
	// Postfix hands local submissions over as from 127.0.0.1, port 0. A client without
	// an address is not one of them: it is trusted nowhere.
	env.Local = env.Client.Port == 0 && env.Client.Addr.IsLoopback() && env.Login == ""
	env.HandsOverAtOnce = strings.HasPrefix(env.MTA, "Postfix")
	return env
}

// cost is about what a path takes in memory.
func cost(cmd *command) int {
	n := 64 + len(cmd.text)
	for _, p := range cmd.parameters {
		n += 32 + len(p.Name) + len(p.Value)
	}
	return n
}

// RcptTo implements gomilter.Milter. Recipients past the limits are refused one by one.
func (h *handler) RcptTo(string, *gomilter.Modifier) (gomilter.Response, error) {
	return h.guard(func() gomilter.Response {
		m := h.m
		switch {
		case m == nil || m.failed.Code != 0:
			return h.refuse()
		case len(m.env.Recipients) >= h.o.MaxRecipients || m.bytes+cost(&h.c.cmd) > h.o.MaxEnvelopeBytes:
			reply := h.refusal(452, "4.5.3", "Too many recipients")
			if m.env.Local { // part of the mail can't be refused there
				h.fail(failedRecipients, reply, "too many recipients")
				return gomilter.RespContinue
			}
			h.o.Metrics.recipients.Inc()
			return customReply(reply)
		}
		m.bytes += cost(&h.c.cmd)
		m.env.Recipients = append(m.env.Recipients, envelope.Recipient{Address: envelope.Parse(h.c.cmd.text), Parameters: h.c.cmd.parameters})
		return gomilter.RespContinue
	})
}

// Header implements gomilter.Milter.
func (h *handler) Header(string, string, *gomilter.Modifier) (gomilter.Response, error) {
	return h.guard(func() gomilter.Response {
		m := h.m
		if m == nil || m.failed.Code != 0 {
			return h.content()
		}
		if m.headerDone {
			h.fail(failedInternal, h.unavailable(), "header field after the end of the header")
			return h.content()
		}
		if m.fields++; m.fields > h.o.MaxHeaderFields {
			h.fail(failedTooLarge, h.refusal(552, "5.3.4", "Message has too many header fields"), "too many header fields")
			return h.content()
		}
		value := h.c.cmd.value
		if h.c.terms.steps&gomilter.OptHeaderLeadingSpace == 0 && value != "" {
			value = " " + value // taken off by the MTA
		}
		h.written(m.msg.WriteField(h.c.cmd.name, value))
		return h.content()
	})
}

// Headers implements gomilter.Milter: the end of the header section.
func (h *handler) Headers(textproto.MIMEHeader, *gomilter.Modifier) (gomilter.Response, error) {
	return h.guard(func() gomilter.Response {
		h.endHeader()
		return h.content()
	})
}

// BodyChunk implements gomilter.Milter.
func (h *handler) BodyChunk([]byte, *gomilter.Modifier) (gomilter.Response, error) {
	return h.guard(func() gomilter.Response {
		h.chunk()
		return h.content()
	})
}

// chunk adds the command's piece of the body to the message.
func (h *handler) chunk() {
	h.endHeader() // if the MTA left EOH out
	if h.m != nil && h.m.failed.Code == 0 && len(h.c.cmd.chunk) > 0 {
		_, err := h.m.msg.Write(h.c.cmd.chunk)
		h.written(err)
	}
}

// content is the reply to a piece of the message: what is wrong with it is told at its end.
func (h *handler) content() gomilter.Response {
	if h.m == nil {
		return h.refuse()
	}
	return gomilter.RespContinue
}

// endHeader ends the header section, once, and starts the run.
func (h *handler) endHeader() {
	m := h.m
	if m == nil || m.headerDone || m.failed.Code != 0 {
		return
	}
	m.headerDone = true
	if h.written(m.msg.EndHeader()); m.failed.Code != 0 {
		return
	}
	m.env.QueueID, m.env.Macros = h.c.macros.get("i"), h.c.macros.all()
	if m.run = h.o.Gateway.Start(m.ctx, m.env, m.msg); m.run == nil {
		h.fail(failedInternal, h.unavailable(), "gateway gave no run")
	}
}

// written turns an error of the spool, or of the gateway that could not begin, into the
// reply that the message will get.
func (h *handler) written(err error) {
	switch {
	case err == nil:
	case errors.Is(err, mail.ErrTooLarge):
		h.fail(failedTooLarge, h.refusal(552, "5.3.4", "Message is too large"), "too large")
	case errors.Is(err, mail.ErrSpoolFull):
		h.fail(failedSpoolFull, h.refusal(451, "4.3.1", "Insufficient storage, try again later"), "spool is full")
	default:
		h.fail(failedInternal, h.unavailable(), err.Error())
	}
}

// fail gives the message in hand up, in favour of a reply; the first counts. label is for
// the metric, reason for the log and the run.
func (h *handler) fail(label string, reply policy.Reply, reason string) {
	m := h.m
	if m == nil || m.failed.Code != 0 {
		return
	}
	m.failed = reply
	h.o.Metrics.failed.WithLabelValues(label).Inc()
	level := slog.LevelWarn
	if reply.Code >= 500 {
		level = slog.LevelInfo
	}
	h.log.Log(h.ctx, level, "message refused by the milter session", "queue_id", h.c.macros.get("i"), "client_address", m.env.Client.Addr,
		"sender", m.env.Sender.Address.String(), "reply", reply.Code, "reason", reason)
	h.release(reason)
}

// release gives back what the message in hand holds, if no one did.
func (h *handler) release(reason string) {
	m := h.m
	run, msg := m.run, m.msg
	m.run, m.msg = nil, nil
	m.cancel()
	switch {
	case run != nil:
		if msg != nil {
			msg.Abort()
		}
		h.protect(func() { run.Abandon(reason) })
	case msg != nil:
		msg.Abort()
		_ = msg.Close() // nothing is to be done about it, and nobody reads it
	}
}

// forget ends the message in hand, which holds nothing any more.
func (h *handler) forget() {
	h.m.cancel()
	h.m = nil
	h.c.setOpen(false)
	h.c.macros.endMessage()
}

// abandon ends the message in hand, if any, without a reply.
func (h *handler) abandon(reason string) {
	if h.m == nil {
		return
	}
	h.release(reason)
	h.m = nil
	h.c.setOpen(false)
}

// Abort implements gomilter.Milter: ABORT, and QUIT_NC, which ends the SMTP session but not
// the connection.
func (h *handler) Abort(*gomilter.Modifier) error {
	if h.c.rinse {
		h.c.rinse = false
		return nil
	}
	_, err := h.guard(func() gomilter.Response {
		h.abandon("aborted by the MTA")
		h.c.macros.endMessage()
		if h.c.cmd.code == gomilter.CodeQuitNewConn {
			h.client = envelope.Client{}
			h.c.macros = macroStore{}
		}
		return nil
	})
	return err
}

// end is called when the connection is over.
func (h *handler) end(cause error) {
	if h.m != nil {
		h.o.Metrics.aborted.Inc()
	}
	h.protect(func() { h.abandon(cause.Error()) })
}
