package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"

	"sluice/internal/envelope"
	"sluice/internal/mail"
	"sluice/internal/verdict"
	"sluice/policy"
	"sluice/scanners"
)

const hello = "From: Lee <lee@example.org>\r\nTo: kim@example.net\r\nSubject: hello\r\n\r\nHello.\r\n"

func TestInvariant1OneDispositionOneRecordOneLine(t *testing.T) {
	b := newBench(t, "policies: []\n", eicar(), scores(0.5))
	for range 20 {
		b.send(inbound("<kim@example.net>", "<ann@example.net>"), hello)
	}
	run, _, _ := b.begin(t.Context(), inbound("<kim@example.net>"), hello)
	run.Abandon("connection lost")
	msgs := b.log.messages(t)
	if len(b.journal.records) != 20 || len(b.journal.answered) != 20 || len(msgs) != 21 {
		t.Errorf("%d records, %d answers, %d lines", len(b.journal.records), len(b.journal.answered), len(msgs))
	}
	for i, r := range b.journal.records {
		if msgs[i]["id"] != r.ID || msgs[i]["queue_id"] != r.QueueID || r.QueueID != "4Q0001" || r.PolicyGeneration != 7 {
			t.Errorf("record %+v and line %v", r, msgs[i])
		}
	}
}

func TestInvariant2WhateverGoesWrongIs451(t *testing.T) {
	broken := fake{"rules", func(context.Context, *scanners.Input) (scanners.Result, error) { panic("x") }}
	for _, tc := range []struct {
		name   string
		change func(*bench)
		// whole is false if the message is broken off instead of completed.
		gone    bool
		trouble string
	}{
		{"record not kept", func(b *bench) { b.journal.err = errors.New("disk full") }, false, "record not kept"},
		{"journal panics", func(b *bench) { b.journal.panics = true }, false, "record not kept"},
		{"no policies", func(b *bench) {
			b.settings.Policies = func() *policy.Snapshot { return nil }
		}, false, errNoPolicies.Error()},
		{"policies panic", func(b *bench) {
			b.settings.Policies = func() *policy.Snapshot { panic(errors.New("secret")) }
		}, false, "panic: *errors.errorString"},
		{"MTA goes away", func(*bench) {}, true, errGone.Error()},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBench(t, "policies: []\n", eicar(), scores(0.5))
			tc.change(b)
			if err := b.g.Reload(b.settings); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			run, msg, body := b.begin(ctx, inbound("<kim@example.net>"), hello)
			if _, err := msg.Write([]byte(body)); err != nil {
				t.Fatal(err)
			}
			if err := msg.Complete(); err != nil {
				t.Fatal(err)
			}
			if tc.gone {
				cancel()
			}
			d := run.Finish(ctx, "4Q9")
			run.Answered(nil)
			if d.Reply.Code != 451 || d.Reply.Enhanced != "4.3.0" || !strings.HasSuffix(d.Reply.Text, "(id id-1)") || len(d.Fields) > 0 {
				t.Errorf("disposition %+v", d)
			}
			line := b.log.messages(t)[0]
			if line["err"] != tc.trouble || line["queue_id"] != "4Q9" || line["disposition"] != "451 4.3.0" {
				t.Errorf("line %v", line)
			}
		})
	}
	t.Run("a scanner panics", func(t *testing.T) {
		b := newBench(t, "policies:\n  - match: \"@.\"\n    unchecked_action: tempfail\n", eicar(), broken)
		if o := b.send(inbound("<kim@example.net>"), hello); o.Reply.Code != 451 {
			t.Errorf("reply %+v", o.Reply)
		}
	})
	t.Run("a message that isn't complete", func(t *testing.T) {
		b := newBench(t, "policies: []\n")
		run, msg, _ := b.begin(t.Context(), inbound("<kim@example.net>"), hello)
		msg.Abort()
		d := run.Finish(t.Context(), "")
		run.Answered(nil)
		if d.Reply.Code != 451 {
			t.Errorf("reply %+v", d.Reply)
		}
	})
}

func TestInvariant3ScanOnceDecidePerRecipient(t *testing.T) {
	var scans atomic.Int32
	counting := fake{"rules", func(context.Context, *scanners.Input) (scanners.Result, error) {
		scans.Add(1)
		return scanners.Result{Complete: true, Findings: []verdict.Finding{{Symbol: "A", Kind: verdict.KindSpam, Score: 6 * verdict.Point}}}, nil
	}}
	b := newBench(t, `
policies:
  - match: "@strict.example.net"
    kill_score: 6
  - match: "@lenient.example.net"
    mark_score: 50
    kill_score: 60
`, counting)
	o := b.send(inbound("<a@lenient.example.net>", "<b@example.net>", "<c@lenient.example.net>"), hello)
	if scans.Load() != 1 {
		t.Errorf("scanned %d times", scans.Load())
	}
	var got []string
	for _, d := range o.Decisions {
		got = append(got, d.Recipient+" "+d.Class.String())
	}
	if want := "a@lenient.example.net clean, b@example.net marked, c@lenient.example.net clean"; strings.Join(got, ", ") != want {
		t.Errorf("decisions %v", got)
	}
	if o := b.send(inbound("<a@lenient.example.net>", "<x@strict.example.net>"), hello); o.Reply.Code != 550 {
		t.Errorf("one rejects beside one who doesn't, without a store: %+v", o.Reply)
	}
}

func TestInvariant4ScannersSeeTheBytesOfTheMTA(t *testing.T) {
	raw := "From: a@example.org\r\nX-Odd:\tx\r\n\r\nbody \x00\xff\r\n.\r\nlast line without end"
	var seen bytes.Buffer
	reader := fake{clamav, func(ctx context.Context, in *scanners.Input) (scanners.Result, error) {
		_, err := io.Copy(&seen, in.Message.Reader(ctx, 0))
		return scanners.Result{Complete: true}, err
	}}
	b := newBench(t, "policies: []\n", reader)
	env := inbound("<kim@example.org>")
	env.Login = "lee@example.net"
	o := b.send(env, raw)
	if seen.String() != raw {
		t.Errorf("scanner saw %q", seen.String())
	}
	if !o.Reply.Accepted() || len(o.Fields)+len(o.AddRecipients)+len(o.RemoveRecipients) > 0 {
		t.Errorf("originating clean mail is changed: %+v", o.Disposition)
	}
}

func TestInvariant5LogLineAndHeaderAreBounded(t *testing.T) {
	var fs []verdict.Finding
	for i := range 900 {
		fs = append(fs, verdict.Finding{Symbol: fmt.Sprintf("SYMBOL_%d_%s", i, strings.Repeat("X", 90)), Kind: verdict.KindSpam})
	}
	b := newBench(t, "policies: []\n", finds("rules", fs...))
	env := inbound()
	for i := range 10_000 {
		env.Recipients = append(env.Recipients, envelope.Recipient{Address: envelope.Parse(fmt.Sprintf("<user%d-%s@example.net>", i, strings.Repeat("y", 400)))})
	}
	env.Client.Helo = strings.Repeat("h", 10_000)
	o := b.send(env, hello)
	if n := len(b.log.String()); n > 20_000 {
		t.Errorf("log line of %d bytes", n)
	}
	for _, f := range o.Fields {
		if len(f.Value) > 60_000 {
			t.Errorf("%s of %d bytes", f.Name, len(f.Value))
		}
	}
	long := "From: a@example.org\r\n" + strings.Repeat("X-Spam-Flag: YES\r\n", 10_100) + "\r\nx\r\n"
	if o := b.send(inbound("<kim@example.net>"), long); o.Reply.Code != 550 {
		t.Errorf("header with more fields than are read: %+v", o.Reply)
	}
}

func TestHeaderThatCannotBeCleanedIsNotDelivered(t *testing.T) {
	b := newBench(t, "policies:\n  - match: \"@.\"\n    ambiguous_action: accept\n")
	long := "From: a@example.org\r\n" + strings.Repeat("X-Any: 1\r\n", 10_100) + "X-Spam-Flag: YES\r\n\r\nx\r\n"
	if o := b.send(inbound("<kim@example.net>"), long); o.Reply.Code != 451 {
		t.Errorf("delivered with a forged field: %+v", o.Disposition)
	}
}

func TestInvariant6NothingOfTheMailIsTold(t *testing.T) {
	b := newBench(t, "policies: []\n", scores(20))
	env := inbound("<kim@example.net>")
	env.Macros = map[string]string{"{auth_password}": "SECRET-CREDENTIAL"}
	o := b.send(env, "From: lee@example.org\r\nSubject: SECRET-SUBJECT\r\n\r\nSECRET-BODY\r\n")
	told := b.log.String() + fmt.Sprint(o.Disposition)
	families, err := b.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		told += f.String()
	}
	if strings.Contains(told, "SECRET") {
		t.Errorf("told: %s", told)
	}
	if o.Reply.Code != 550 {
		t.Errorf("reply %+v", o.Reply)
	}
}

func TestInvariant7NoScanOutlivesItsMessage(t *testing.T) {
	var inside atomic.Int32
	started := make(chan struct{}, 1)
	hangs := fake{clamav, func(ctx context.Context, in *scanners.Input) (scanners.Result, error) {
		inside.Add(1)
		defer inside.Add(-1)
		started <- struct{}{}
		<-ctx.Done()
		return scanners.Result{}, ctx.Err()
	}}
	b := newBench(t, "policies: []\n", hangs)
	run, msg, _ := b.begin(t.Context(), inbound("<kim@example.net>"), hello)
	if err := msg.Complete(); err != nil {
		t.Fatal(err)
	}
	<-started
	run.Abandon("ABORT")
	if n := inside.Load(); n != 0 {
		t.Errorf("%d scans run on", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	run, msg, _ = b.begin(ctx, inbound("<kim@example.net>"), hello)
	if err := msg.Complete(); err != nil {
		t.Fatal(err)
	}
	<-started
	cancel()
	run.Finish(ctx, "")
	run.Answered(errors.New("connection lost"))
	if n := inside.Load(); n != 0 {
		t.Errorf("%d scans run on", n)
	}
	if got := b.log.messages(t)[1]["reply_err"]; got != "connection lost" {
		t.Errorf("reply_err %v", got)
	}
}

func TestInvariant8WhatCouldNotBeLookedAtIsAFinding(t *testing.T) {
	away := fake{clamav, func(context.Context, *scanners.Input) (scanners.Result, error) {
		return scanners.Result{}, errors.New("connection refused")
	}}
	b := newBench(t, `
policies:
  - match: "@brave.example.net"
    failed_action: accept
`, away, scores(0))
	o := b.send(inbound("<kim@example.net>"), hello)
	if o.Reply.Code != 451 || o.Decisions[0].Class != verdict.ClassFailed {
		t.Errorf("disposition %+v", o.Disposition)
	}
	got := b.delivered(b.send(inbound("<kim@brave.example.net>"), hello))
	if s, c := valuesOf(got, "X-Virus-Status"), valuesOf(got, "X-Sluice-Class"); len(s) != 1 || s[0] != "Unchecked" || len(c) != 1 || !strings.HasPrefix(c[0], "failed; reason=") {
		t.Errorf("X-Virus-Status %q, X-Sluice-Class %q", s, c)
	}
	if n := testutil.ToFloat64(b.g.metrics.bypass.WithLabelValues(bypassFailed)); n != 1 {
		t.Errorf("sluice_bypass_total{reason=failed} %v", n)
	}
}

func TestTimeBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hangs := fake{clamav, func(ctx context.Context, in *scanners.Input) (scanners.Result, error) {
			<-ctx.Done()
			return scanners.Result{}, ctx.Err()
		}}
		b := newBench(t, "policies: []\n", hangs)
		pool, err := scanners.NewPool(scanners.PoolOptions{
			Entries: []scanners.Entry{{Scanner: hangs, Stage: 1, Required: true, Timeout: time.Hour}}, Log: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		b.settings.Pool, b.settings.Timeout = pool, 4*time.Minute
		if err := b.g.Reload(b.settings); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		o := b.send(inbound("<kim@example.net>"), hello)
		if took := time.Since(began); took >= 4*time.Minute || took < 3*time.Minute {
			t.Errorf("took %v", took)
		}
		if o.Reply.Code != 451 || o.Decisions[0].Class != verdict.ClassFailed {
			t.Errorf("disposition %+v", o.Disposition)
		}
	})
}

func TestDirection(t *testing.T) {
	for _, tc := range []struct {
		name  string
		env   func(*envelope.Envelope)
		want  envelope.Direction
		relay bool
	}{
		{"from outside", func(*envelope.Envelope) {}, envelope.Inbound, false},
		{"submission daemon", func(e *envelope.Envelope) { e.Daemon = "ORIGINATING" }, envelope.Outbound, false},
		{"login", func(e *envelope.Envelope) { e.Login = "lee" }, envelope.Outbound, false},
		{"own network", func(e *envelope.Envelope) { e.Client.Addr = addr("127.0.0.9") }, envelope.Outbound, false},
		{"own network, v6", func(e *envelope.Envelope) { e.Client.Addr = addr("::1") }, envelope.Outbound, false},
		{"own network, v4 in v6", func(e *envelope.Envelope) { e.Client.Addr = addr("::ffff:127.0.0.1") }, envelope.Outbound, false},
		{"no address", func(e *envelope.Envelope) { e.Client = envelope.Client{} }, envelope.Inbound, false},
		{"relay", func(e *envelope.Envelope) { e.Client.Addr = addr("203.0.113.5") }, envelope.Inbound, true},
		{"relay by submission", func(e *envelope.Envelope) { e.Client.Addr = addr("203.0.113.5"); e.Daemon = "ORIGINATING" }, envelope.Inbound, true},
		{"relay that logged in", func(e *envelope.Envelope) { e.Client.Addr = addr("203.0.113.5"); e.Login = "relay" }, envelope.Outbound, true},
		{"local submission", func(e *envelope.Envelope) { e.Local = true; e.Client = envelope.Client{Name: "localhost"} }, envelope.Outbound, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBench(t, "policies: []\n")
			env := inbound("<kim@example.net>")
			tc.env(env)
			o := b.settings.Origin
			if d, r := o.direction(env), o.isRelay(env); d != tc.want || r != tc.relay {
				t.Errorf("%v, relay %v", d, r)
			}
		})
	}
}

// A relay gets no 5xx unless the site says so.
func TestRelayReject(t *testing.T) {
	b := newBench(t, "policies: []\n", scores(20))
	env := inbound("<kim@example.net>")
	env.Client.Addr = addr("203.0.113.5")
	if o := b.send(env, hello); o.Reply.Code >= 500 {
		t.Errorf("reply %+v", o.Reply)
	}
	b.settings.Origin.RelayReject = true
	if err := b.g.Reload(b.settings); err != nil {
		t.Fatal(err)
	}
	if o := b.send(env, hello); o.Reply.Code != 550 {
		t.Errorf("reply %+v", o.Reply)
	}
}

// Mail of one of our users to another is decided by both policies.
func TestOwnUsersToOwnUsers(t *testing.T) {
	b := newBench(t, `
policies:
  - match: "@."
    direction: outbound
    kill_score: 100
  - match: "@tenant.example.net"
    kill_score: 10
`, scores(20))
	env := inbound("<kim@tenant.example.net>")
	env.Login = "lee@example.net"
	if o := b.send(env, hello); o.Reply.Code != 550 {
		t.Errorf("to a tenant: %+v", o.Reply)
	}
	env.Recipients = inbound("<x@example.com>").Recipients
	o := b.send(env, hello)
	if got := b.delivered(o); len(got) != 3 {
		t.Errorf("to the outside:\n%s", written(got))
	}
}

func TestAuthor(t *testing.T) {
	for _, tc := range []struct{ value, want string }{
		{" Lee Park <Lee@Example.org>", "lee@example.org"},
		{" root@host.example.net (Cron Daemon)", "root@host.example.net"},
		{" \"a@example.com\" <lee@example.org>", "lee@example.org"},
		{" =?utf-8?Q?a=40example.com?= <lee@example.org>", "lee@example.org"},
		{" Pr\xfcfer <lee@example.org>", "lee@example.org"},
		{" lee@bücher.example", "lee@xn--bcher-kva.example"},
		{" a@example.org, b@example.org", ""},
		{" friends: a@example.org, b@example.org;", ""},
		{" <a@example.org> <b@example.org>", ""},
		{" undisclosed", ""},
		{"", ""},
	} {
		if got := author([]mail.Field{{Name: "from", Value: tc.value}}); got.Key() != tc.want {
			t.Errorf("%q: %q, want %q", tc.value, got.Key(), tc.want)
		}
	}
	if got := author([]mail.Field{{Name: "From", Value: " a@example.org"}, {Name: "FROM", Value: " b@example.org"}}); !got.IsNull() {
		t.Errorf("two From fields: %q", got)
	}
}

func FuzzAuthor(f *testing.F) {
	f.Add(" Lee <lee@example.org>")
	f.Add("\xff\"(<a@example.org>)\" <b@example.org>")
	f.Fuzz(func(t *testing.T, value string) {
		a := author([]mail.Field{{Name: "From", Value: value}})
		if !a.IsNull() && (a.Local == "" || !envelope.ValidDomain(a.Domain)) {
			t.Errorf("%q: %+v", value, a)
		}
	})
}

func TestReloadKeepsWhatAMessageBeganWith(t *testing.T) {
	b := newBench(t, "policies: []\n", scores(20))
	var retired atomic.Int32
	first := b.settings
	first.Retired = func() { retired.Add(1) }
	if err := b.g.Reload(first); err != nil {
		t.Fatal(err)
	}
	if o := b.send(inbound("<kim@example.net>"), hello); o.Reply.Code != 550 || retired.Load() != 0 {
		t.Errorf("reply %+v, retired %d times while in force", o.Reply, retired.Load())
	}
	run, msg, _ := b.begin(t.Context(), inbound("<kim@example.net>"), hello)
	second := b.settings
	second.Pool = newPool(t, scores(0))
	if err := b.g.Reload(second); err != nil {
		t.Fatal(err)
	}
	if retired.Load() != 0 {
		t.Error("retired while a message uses them")
	}
	if err := msg.Complete(); err != nil {
		t.Fatal(err)
	}
	if d := run.Finish(t.Context(), ""); d.Reply.Code != 550 {
		t.Errorf("reply %+v", d.Reply)
	}
	run.Answered(nil)
	if retired.Load() != 1 {
		t.Errorf("retired %d times", retired.Load())
	}
	b.delivered(b.send(inbound("<kim@example.net>"), hello))
	if err := b.g.Reload(Settings{}); err == nil {
		t.Error("settings without policies are taken")
	}
	b.delivered(b.send(inbound("<kim@example.net>"), hello))
}

func TestAdmission(t *testing.T) {
	b := newBench(t, "policies: []\n")
	b.settings.MaxInFlight = 1
	b.settings.Origin.ReinjectDaemons = []string{"REINJECT"}
	if err := b.g.Reload(b.settings); err != nil {
		t.Fatal(err)
	}
	run, _, _ := b.begin(t.Context(), inbound("<kim@example.net>"), hello)
	if _, err := b.g.Begin(inbound("<kim@example.net>")); !errors.Is(err, ErrBusy) {
		t.Errorf("error %v", err)
	}
	own := inbound("<kim@example.net>")
	own.Daemon = "REINJECT"
	if msg, err := b.g.Begin(own); err != nil {
		t.Errorf("our own copy: %v", err)
	} else if err := msg.Close(); err != nil {
		t.Error(err)
	}
	run.Abandon("ABORT")
	b.delivered(b.send(inbound("<kim@example.net>"), hello))
}

func TestObserveAndTickets(t *testing.T) {
	b := newBench(t, "policies:\n  - match: \"@.\"\n    observe: true\n", scores(20))
	raw := "X-Sluice-Ticket: t\r\nX-Spam-Flag: YES\r\n" + hello
	o := b.send(inbound("<kim@example.net>"), raw)
	got := b.delivered(o)
	if len(valuesOf(got, "X-Sluice-Ticket")) != 0 || len(got) != len(o.header)-1 {
		t.Errorf("observed mail is changed:\n%s", written(got))
	}
	if n := testutil.ToFloat64(b.g.metrics.bypass.WithLabelValues(bypassObserve)); n != 1 {
		t.Errorf("sluice_bypass_total{reason=observe} %v", n)
	}
	if s := b.log.messages(t)[0]["symbols"].(string); !strings.Contains(s, "SLUICE_TICKET_INVALID") {
		t.Errorf("symbols %q", s)
	}
}

func TestLogLineKeys(t *testing.T) {
	b := newBench(t, "policies: []\n", eicar(), scores(6))
	env := inbound("<kim@example.net>")
	env.Client.Name, env.Client.Helo = "evil\nname", "helo\x1b[31m"
	b.send(env, hello)
	m := b.log.messages(t)[0]
	for key, want := range map[string]any{
		"queue_id": "4Q0001", "session_id": "s-1", "id": "id-1", "client_address": "198.51.100.17", "client_name": "evil name", "helo_name": "helo [31m",
		"sasl_username": "", "sender": "lee@example.org", "recipient": "kim@example.net", "recipients": 1.0, "size": float64(len(hello)),
		"class": "marked", "action": "tag", "score": "6", "required": "5", "symbols": "SL_TEST", "disposition": "accept", "direction": "inbound",
	} {
		if m[key] != want {
			t.Errorf("%s is %v, want %v", key, m[key], want)
		}
	}
	if m["level"] != "INFO" || m["duration"] == nil {
		t.Errorf("line %v", m)
	}
}

func TestMetrics(t *testing.T) {
	b := newBench(t, `
policies:
  - match: "strict@example.net"
    kill_score: 6
  - match: "lenient@example.net"
    mark_score: 50
    kill_score: 60
`, eicar(), scores(6))
	b.g.metrics.Reloaded(true)
	b.send(inbound("<kim@example.net>"), hello)
	b.send(inbound("<kim@example.net>", "<strict@example.net>"), hello)
	b.send(inbound("<kim@example.net>", "<lenient@example.net>"), hello)
	run, _, _ := b.begin(t.Context(), inbound("<kim@example.net>"), hello)
	run.Abandon("ABORT")
	run, msg, _ := b.begin(t.Context(), inbound("<kim@example.net>"), hello)
	if err := msg.Complete(); err != nil {
		t.Fatal(err)
	}
	run.Finish(t.Context(), "")
	run.Answered(errors.New("broken pipe"))
	problems, err := testutil.GatherAndLint(b.registry)
	if err != nil || len(problems) > 0 {
		t.Errorf("lint: %v %v", err, problems)
	}
	families, err := b.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]*dto.MetricFamily{}
	for _, f := range families {
		there[f.GetName()] = f
	}
	for _, name := range []string{
		"sluice_messages_total", "sluice_bypass_total", "sluice_compromise_total", "sluice_split_reject_total", "sluice_panics_total",
		"sluice_message_duration_seconds", "sluice_message_size_bytes", "sluice_policy_lookup_duration_seconds",
		"sluice_messages_in_flight", "sluice_spool_bytes", "sluice_policy_generation", "sluice_policy_stale_seconds",
		"sluice_config_last_reload_successful", "sluice_build_info",
	} {
		f := there[name]
		if f == nil {
			t.Errorf("%s is missing", name)
			continue
		}
		if h := f.Metric[0].GetHistogram(); h != nil && (len(h.Bucket) == 0 || h.Schema == nil) {
			t.Errorf("%s isn't both native and classic", name)
		}
	}
	if n := len(there["sluice_messages_total"].Metric); n != 2*8*7 {
		t.Errorf("sluice_messages_total has %d series from the start", n)
	}
	if n := testutil.ToFloat64(b.g.metrics.messages.WithLabelValues("inbound", "marked", "tag")); n != 3 {
		t.Errorf("counted %v", n)
	}
	for name, m := range map[string]struct {
		c    prometheus.Collector
		want float64
	}{"abandoned": {b.g.metrics.abandoned, 1}, "unanswered": {b.g.metrics.unanswered, 1}, "split": {b.g.metrics.split, 1}, "compromise": {b.g.metrics.compromise, 1}} {
		if n := testutil.ToFloat64(m.c); n != m.want {
			t.Errorf("%s: %v, want %v", name, n, m.want)
		}
	}
	if n := there["sluice_policy_generation"].Metric[0].GetGauge().GetValue(); n != 7 {
		t.Errorf("generation %v", n)
	}
}

func TestExamineIsWhatFinishDoes(t *testing.T) {
	b := newBench(t, "policies: []\n", eicar(), scores(6))
	env := inbound("<kim@example.net>")
	want := b.send(env, hello)
	msg := b.spool.New()
	if _, err := msg.ReadFrom(strings.NewReader(hello)); err != nil {
		t.Fatal(err)
	}
	e, err := b.g.Examine(t.Context(), env, msg)
	if err != nil {
		t.Fatal(err)
	}
	if err := msg.Close(); err != nil {
		t.Error(err)
	}
	same := func(s string) string { return strings.NewReplacer("id-1", "ID", "id-2", "ID").Replace(s) }
	if a, b := same(fmt.Sprintf("%+v", want.Fields)), same(fmt.Sprintf("%+v", e.Disposition.Fields)); a != b {
		t.Errorf("scan says %s, the milter %s", b, a)
	}
	if len(b.journal.records) != 1 || len(b.log.messages(t)) != 1 {
		t.Error("an examination is recorded")
	}
	var out bytes.Buffer
	if err := e.Report("hello.eml", 1500*time.Microsecond).WriteLine(&out); err != nil {
		t.Fatal(err)
	}
	wantJSON := `{"file":"hello.eml","class":"marked","score":6,"action":"tag","findings":[{"symbol":"SL_TEST","kind":"spam","score":6,"description":"a test","scanner":"rules","part":""}],"errors":[],"elapsed_ms":1.5}` + "\n"
	if out.String() != wantJSON {
		t.Errorf("got  %swant %s", out.String(), wantJSON)
	}
	out.Reset()
	if err := e.Explain(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"For kim@example.net: tag, because the message counts as marked", "SL_TEST", "X-Spam-Flag: YES", "built-in defaults"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("explanation lacks %q:\n%s", want, out.String())
		}
	}
}

func TestReportOfNobodyAndOfFailure(t *testing.T) {
	b := newBench(t, "policies:\n  - match: \"@.\"\n    mark_score: 1\n", scores(2))
	msg := b.spool.New()
	if _, err := msg.ReadFrom(strings.NewReader(hello)); err != nil {
		t.Fatal(err)
	}
	e, err := b.g.Examine(t.Context(), inbound(), msg)
	if err != nil {
		t.Fatal(err)
	}
	if err := msg.Close(); err != nil {
		t.Error(err)
	}
	if r := e.Report("x", 0); r.Class != verdict.ClassMarked {
		t.Errorf("report %+v", r)
	}
	raw, err := json.Marshal(FailedReport("x", errors.New("no\nsuch file"), 0))
	want := `{"file":"x","class":"failed","score":0,"action":"tempfail","findings":[],"errors":["no such file"],"elapsed_ms":0}`
	if err != nil || string(raw) != want {
		t.Errorf("%s %v", raw, err)
	}
}

// TestWhatPolicyItselfFoundIsTold: a size limit and a denied sender are no scanner's
// finding; log line and report name them all the same.
func TestWhatPolicyItselfFoundIsTold(t *testing.T) {
	for _, tt := range []struct{ policy, symbol string }{
		{"max_size: 1", "SIZE_LIMIT"},
		{"deny_senders: {\"@example.org\": 20}", policy.SymbolDenySender},
	} {
		t.Run(tt.symbol, func(t *testing.T) {
			b := newBench(t, "policies:\n  - match: \"@.\"\n    "+tt.policy+"\n", scores(1))
			env := inbound("<kim@example.net>")
			env.Sender.Address = envelope.Parse("<lee@example.org>")
			if d := b.send(env, hello); d.Reply.Code < 500 {
				t.Fatalf("reply %+v", d.Reply)
			}
			lines := b.log.messages(t)
			if len(lines) != 1 || !strings.Contains(fmt.Sprint(lines[0]), tt.symbol) {
				t.Errorf("log says %v", lines)
			}
			msg := b.spool.New()
			if _, err := msg.ReadFrom(strings.NewReader(hello)); err != nil {
				t.Fatal(err)
			}
			defer msg.Close()
			e, err := b.g.Examine(t.Context(), env, msg)
			if err != nil {
				t.Fatal(err)
			}
			found := e.Report("x", 0).Findings
			if !slices.ContainsFunc(found, func(f verdict.Finding) bool { return f.Symbol == tt.symbol && f.Scanner == verdict.FinderPolicy }) {
				t.Errorf("findings %+v", found)
			}
		})
	}
}
