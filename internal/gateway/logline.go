package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"sluice/internal/verdict"
	"sluice/policy"
)

// Bounds of the log line.
const (
	loggedRecipients = 20
	loggedSymbols    = 40
	loggedAddress    = 320
)

// logAnswered writes the line of a message that was answered.
func (r *Run) logAnswered(took time.Duration, replyErr error) {
	attrs := r.who()
	if e := r.examined; e != nil {
		worst := e.Worst()
		attrs = append(attrs,
			slog.String("class", worst.Class.String()),
			slog.String("action", e.Action().String()),
			slog.String("score", worst.Score.String()),
			slog.String("required", worst.Mark.String()),
			slog.String("symbols", symbolList(e.findings())),
			slog.String("policy", worst.Policy),
			slog.String("scan", runList(e.Verdict.Scanners)),
		)
		if errs := e.Verdict.Errors(); len(errs) > 0 {
			attrs = append(attrs, slog.String("scan_err", verdict.Printable(strings.Join(errs, "; "), 512)))
		}
		if len(r.disposition.Notes) > 0 {
			attrs = append(attrs, slog.String("note", strings.Join(r.disposition.Notes, ", ")))
		}
	}
	attrs = append(attrs, slog.String("disposition", describe(r.disposition)), slog.Duration("duration", took))
	if r.trouble != "" {
		attrs = append(attrs, slog.String("err", r.trouble))
	}
	if replyErr != nil {
		attrs = append(attrs, slog.String("reply_err", verdict.Printable(replyErr.Error(), 256)))
	}
	r.g.log.LogAttrs(context.Background(), slog.LevelInfo, "message", attrs...)
}

// logAbandoned writes the line of a message that had no end.
func (r *Run) logAbandoned(reason string) {
	attrs := append(r.who(),
		slog.String("disposition", "abandoned"),
		slog.Duration("duration", r.g.now().Sub(r.began)),
		slog.String("err", verdict.Printable(reason, 256)))
	r.g.log.LogAttrs(context.Background(), slog.LevelInfo, "message", attrs...)
}

// who are the keys that join with the MTA's log.
func (r *Run) who() []slog.Attr {
	e := r.env
	addr := ""
	if e.Client.Addr.IsValid() {
		addr = e.Client.Addr.String()
	}
	to := make([]string, 0, min(len(e.Recipients), loggedRecipients))
	for _, rc := range e.Recipients[:cap(to)] {
		to = append(to, verdict.Printable(rc.Address.String(), loggedAddress))
	}
	return []slog.Attr{
		slog.String("queue_id", verdict.Printable(e.QueueID, 64)),
		slog.String("session_id", e.SessionID),
		slog.String("id", r.id),
		slog.String("direction", r.set.Origin.direction(e).String()),
		slog.String("client_address", addr),
		slog.String("client_name", verdict.Printable(e.Client.Name, 255)),
		slog.String("helo_name", verdict.Printable(e.Client.Helo, 255)),
		slog.String("sasl_username", verdict.Printable(e.Login, loggedAddress)),
		slog.String("sender", verdict.Printable(e.Sender.Address.String(), loggedAddress)),
		slog.String("recipient", strings.Join(to, ",")),
		slog.Int("recipients", len(e.Recipients)),
		slog.Int64("size", r.msg.Size()),
	}
}

// describe says what the MTA was told.
func describe(d policy.Disposition) string {
	switch {
	case !d.Reply.Accepted():
		return fmt.Sprintf("%d %s", d.Reply.Code, d.Reply.Enhanced)
	case d.Discard:
		return "discard"
	case len(d.RemoveRecipients) > 0:
		return fmt.Sprintf("accept without %d recipients", len(d.RemoveRecipients))
	}
	return "accept"
}

// symbolList lists the findings' symbols, the gravest first, and the name of what
// was found behind a virus.
func symbolList(fs []verdict.Finding) string {
	var b strings.Builder
	for i, f := range fs {
		if i == loggedSymbols {
			fmt.Fprintf(&b, ",+%d", len(fs)-i)
			break
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(symbol(f.Symbol))
		if f.Kind == verdict.KindVirus && f.Detail != "" {
			b.WriteString("(" + verdict.Printable(f.Detail, 128) + ")")
		}
	}
	return b.String()
}

// runList says how long each scanner took: "clamav:41ms,rules:3ms".
func runList(runs []verdict.ScannerRun) string {
	parts := make([]string, len(runs))
	for i, s := range runs {
		parts[i] = s.Name + ":" + s.Took.Round(time.Millisecond).String()
	}
	return strings.Join(parts, ",")
}
