package gateway

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/internal/envelope"
	"sluice/internal/mail"
	"sluice/internal/testkit"
	"sluice/internal/verdict"
	"sluice/policy"
	"sluice/policy/file"
	"sluice/scanners"
)

// fake is a scanner that answers as a test says.
type fake struct {
	name string
	scan func(ctx context.Context, in *scanners.Input) (scanners.Result, error)
}

func (f fake) Name() string { return f.name }

func (f fake) Scan(ctx context.Context, in *scanners.Input) (scanners.Result, error) {
	return f.scan(ctx, in)
}

// finds is a scanner that always finds the same.
func finds(name string, fs ...verdict.Finding) fake {
	return fake{name, func(context.Context, *scanners.Input) (scanners.Result, error) {
		return scanners.Result{Findings: fs, Complete: true}, nil
	}}
}

// scores is a rules scanner that gives a score.
func scores(points float64) fake {
	return finds("rules", verdict.Finding{Symbol: "SL_TEST", Kind: verdict.KindSpam, Score: verdict.Points(points), Description: "a test"})
}

// eicar is a clamav that knows the test string.
func eicar() fake {
	return fake{clamav, func(ctx context.Context, in *scanners.Input) (scanners.Result, error) {
		var raw bytes.Buffer
		if _, err := raw.ReadFrom(in.Message.Reader(ctx, 0)); err != nil {
			return scanners.Result{}, err
		}
		res := scanners.Result{Complete: true}
		if bytes.Contains(raw.Bytes(), []byte(base64.StdEncoding.EncodeToString([]byte(testkit.EICAR())))) {
			res.Findings = []verdict.Finding{{Symbol: "CLAMAV_VIRUS", Kind: verdict.KindVirus, Detail: "Eicar-Test-Signature"}}
		}
		return res, nil
	}}
}

// memory is a Journal that remembers.
type memory struct {
	mu       sync.Mutex
	records  []*Record
	answered map[string]error
	err      error
	panics   bool
}

func (m *memory) Record(_ context.Context, r *Record) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.panics {
		panic("journal")
	}
	m.records = append(m.records, r)
	return m.err
}

func (m *memory) Answered(id string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.panics {
		panic("journal")
	}
	if m.answered == nil {
		m.answered = map[string]error{}
	}
	m.answered[id] = err
}

// bench is a gateway with what a test looks at.
type bench struct {
	t        testing.TB
	g        *Gateway
	spool    *mail.Spool
	journal  *memory
	registry *prometheus.Registry
	log      *lines
	settings Settings
}

// lines is a log's writer.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// messages returns the attributes of the lines that tell of a message.
func (l *lines) messages(t *testing.T) []map[string]any {
	t.Helper()
	var all []map[string]any
	for line := range strings.Lines(l.String()) {
		m := map[string]any{}
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("log line %q: %v", line, err)
		}
		if m["msg"] == "message" {
			all = append(all, m)
		}
	}
	return all
}

// policies reads policies as from a file.
func policies(t testing.TB, yaml string) func() *policy.Snapshot {
	t.Helper()
	s, problems := file.Parse("policy.yaml", []byte(yaml), file.Options{Delimiters: "+", Generation: 7})
	if len(problems) > 0 {
		t.Fatalf("policy: %v", problems)
	}
	return func() *policy.Snapshot { return s }
}

func newPool(t testing.TB, ss ...fake) *scanners.Pool {
	t.Helper()
	var entries []scanners.Entry
	for _, s := range ss {
		stage := 1
		if s.name == "rules" {
			stage = 2
		}
		entries = append(entries, scanners.Entry{Scanner: s, Stage: stage, Required: true})
	}
	p, err := scanners.NewPool(scanners.PoolOptions{Entries: entries, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// newBench makes a gateway with these policies and scanners, and IDs id-1, id-2 ….
func newBench(t testing.TB, yaml string, ss ...fake) *bench {
	t.Helper()
	spool, err := mail.NewSpool(mail.SpoolOptions{MemoryLimit: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, spool: spool, journal: &memory{}, registry: prometheus.NewRegistry(), log: &lines{}}
	m, err := NewMetrics(b.registry, Build{Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	b.settings = Settings{
		Pool: newPool(t, ss...), Policies: policies(t, yaml),
		Identity: Identity{AuthservID: "mx.example.net", Host: "mx.example.net"},
		Origin: Origin{
			Daemons:  []string{"ORIGINATING"},
			Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
			Relays:   []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")},
		},
	}
	b.g, err = New(Options{
		Spool: spool, Journal: b.journal, Metrics: m, Log: slog.New(slog.NewJSONHandler(b.log, nil)),
		NewID: func() string { n++; return fmt.Sprintf("id-%d", n) },
	}, b.settings)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if memory, disk := spool.Used(); memory != 0 || disk != 0 || b.g.InFlight() != 0 {
			t.Errorf("left in the spool: %d and %d bytes, %d messages in flight", memory, disk, b.g.InFlight())
		}
	})
	return b
}

// from outside to these recipients.
func inbound(rcpts ...string) *envelope.Envelope {
	e := &envelope.Envelope{
		SessionID: "s-1", QueueID: "4Q0001", Host: "mx.example.net", Daemon: "mx.example.net",
		Client: envelope.Client{Addr: netip.MustParseAddr("198.51.100.17"), Port: 2525, Name: "mail.example.org", Helo: "mail.example.org"},
		Sender: envelope.Sender{Address: envelope.Parse("<lee@example.org>")},
	}
	for _, r := range rcpts {
		e.Recipients = append(e.Recipients, envelope.Recipient{Address: envelope.Parse(r)})
	}
	return e
}

// load reads a message of testdata and puts in what it must not hold at rest.
func load(t testing.TB, name string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(raw), "@b64:eicar@", base64.StdEncoding.EncodeToString([]byte(testkit.EICAR())))
}

// begin hands in a message's header section.
func (b *bench) begin(ctx context.Context, env *envelope.Envelope, raw string) (*Run, *mail.Message, string) {
	b.t.Helper()
	msg, err := b.g.Begin(env)
	if err != nil {
		b.t.Fatal(err)
	}
	head, body, _ := strings.Cut(raw, "\r\n\r\n")
	for _, f := range strings.Split(strings.ReplaceAll(strings.ReplaceAll(head, "\r\n ", "\x00 "), "\r\n\t", "\x00\t"), "\r\n") {
		name, value, _ := strings.Cut(f, ":")
		if err := msg.WriteField(name, strings.ReplaceAll(value, "\x00", "\r\n")); err != nil {
			b.t.Fatal(err)
		}
	}
	if err := msg.EndHeader(); err != nil {
		b.t.Fatal(err)
	}
	return b.g.Start(ctx, env, msg), msg, body
}

// outcome is what became of a message.
type outcome struct {
	policy.Disposition
	id     string
	header []mail.Field // as it arrived
}

// send runs a message through the gateway as a session does.
func (b *bench) send(env *envelope.Envelope, raw string) outcome {
	b.t.Helper()
	run, msg, body := b.begin(b.t.Context(), env, raw)
	if _, err := msg.Write([]byte(body)); err != nil {
		b.t.Fatal(err)
	}
	if err := msg.Complete(); err != nil {
		b.t.Fatal(err)
	}
	o := outcome{id: run.ID(), header: msg.Header().Fields}
	o.Disposition = run.Finish(b.t.Context(), env.QueueID)
	run.Answered(nil)
	return o
}

// delivered is the header that arrives.
func (b *bench) delivered(o outcome) []mail.Field {
	b.t.Helper()
	if !o.Reply.Accepted() || o.Discard {
		b.t.Fatalf("not delivered: %+v", o.Disposition)
	}
	return applied(b.t, o.header, o.Fields)
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }
