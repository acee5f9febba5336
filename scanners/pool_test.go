package scanners

import (
	"bytes"
	"context"
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
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"sluice/internal/envelope"
	"sluice/internal/mail"
	"sluice/internal/verdict"
)

// fake is a scanner made of functions.
type fake struct {
	name string
	scan func(context.Context, *Input) (Result, error)
}

func (f *fake) Name() string { return f.name }
func (f *fake) Scan(ctx context.Context, in *Input) (Result, error) {
	return f.scan(ctx, in)
}

// early is a fake that can start early.
type early struct {
	fake
	begin func(context.Context, *Input) (Result, error)
}

func (e *early) ScanEarly(ctx context.Context, in *Input) (Result, error) { return e.begin(ctx, in) }

func clean1(context.Context, *Input) (Result, error) { return Result{Complete: true}, nil }

func hang(ctx context.Context, _ *Input) (Result, error) {
	<-ctx.Done()
	return Result{}, ctx.Err()
}

func finds(fs ...verdict.Finding) func(context.Context, *Input) (Result, error) {
	return func(context.Context, *Input) (Result, error) { return Result{Findings: fs, Complete: true}, nil }
}

func newPool(t *testing.T, o PoolOptions) *Pool {
	t.Helper()
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	p, err := NewPool(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// arriving returns a message of which the header section is there.
func arriving(t *testing.T) *mail.Message {
	t.Helper()
	s, err := mail.NewSpool(mail.SpoolOptions{MemoryLimit: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	m := s.New()
	if err := errors.Join(m.WriteField("Subject", " test"), m.EndHeader()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func whole(t *testing.T) *mail.Message {
	t.Helper()
	m := arriving(t)
	if _, err := m.Write([]byte("Hello.\r\n")); err != nil {
		t.Fatal(err)
	}
	if err := m.Complete(); err != nil {
		t.Fatal(err)
	}
	return m
}

func inputOf(m *mail.Message) *Input {
	return &Input{Envelope: &envelope.Envelope{QueueID: "4Q00081"}, Message: m}
}

// judge runs a complete message through a pool of its own.
func judge(t *testing.T, o PoolOptions) ([]verdict.Finding, []verdict.ScannerRun) {
	t.Helper()
	p := newPool(t, o)
	run := p.Start(t.Context(), inputOf(whole(t)))
	defer run.Cancel()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	return run.Wait(ctx)
}

// What a scanner's answer, or the lack of one, makes of a message.
func TestOutcomes(t *testing.T) {
	panics := func(context.Context, *Input) (Result, error) { panic("secret of a message") }
	fails := func(err error) func(context.Context, *Input) (Result, error) {
		return func(context.Context, *Input) (Result, error) { return Result{}, err }
	}
	away := fails(fmt.Errorf("wrapped: %w", &Error{ReasonUnavailable, errors.New("connection refused")}))
	stuck := func(context.Context, *Input) (Result, error) {
		time.Sleep(10 * time.Minute)
		return Result{Complete: true}, nil
	}
	limit := verdict.Finding{Symbol: "LIMIT", Kind: verdict.KindUnchecked}
	cases := []struct {
		name            string
		required, local bool
		scan            func(context.Context, *Input) (Result, error)
		complete        bool
		symbol          string // "" for none
		kind            verdict.Kind
		reason          Reason
	}{
		{"clean", true, false, clean1, true, "", 0, ""},
		{"required is away", true, false, away, false, "X_FAILED", verdict.KindFailed, ReasonUnavailable},
		{"not required is away", false, false, away, false, "X_FAILED", verdict.KindInfo, ReasonUnavailable},
		{"required hangs", true, false, hang, false, "X_FAILED", verdict.KindFailed, ReasonTimeout},
		{"not required hangs", false, false, hang, false, "X_FAILED", verdict.KindInfo, ReasonTimeout},
		{"required, local, overruns its budget", true, true, hang, false, "X_BUDGET", verdict.KindUnchecked, ReasonTimeout},
		{"not required, local, overruns its budget", false, true, hang, false, "X_BUDGET", verdict.KindUnchecked, ReasonTimeout},
		{"required panics", true, false, panics, false, "X_PANIC", verdict.KindUnchecked, ReasonPanic},
		{"not required panics", false, false, panics, false, "X_PANIC", verdict.KindUnchecked, ReasonPanic},
		{"required, any error", true, true, fails(io.ErrUnexpectedEOF), false, "X_FAILED", verdict.KindFailed, ReasonInternal},
		{"reason of another set", true, false, fails(&Error{"192.0.2.1", io.EOF}), false, "X_FAILED", verdict.KindFailed, ReasonInternal},
		{"says neither clean nor what it left out", true, false, fails(nil), false, "X_FAILED", verdict.KindFailed, ReasonProtocol},
		{"says what it left out", true, false, func(context.Context, *Input) (Result, error) {
			return Result{Findings: []verdict.Finding{limit}}, nil
		}, false, "LIMIT", verdict.KindUnchecked, ""},
		{"ignores its context", true, false, stuck, false, "X_FAILED", verdict.KindFailed, ReasonTimeout},
		{"found something before it failed", true, false, func(context.Context, *Input) (Result, error) {
			return Result{Findings: []verdict.Finding{{Symbol: "A", Kind: verdict.KindVirus}}}, io.ErrUnexpectedEOF
		}, false, "A", verdict.KindVirus, ReasonInternal},
	}
	for _, tc := range cases {
		for _, stage := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s, stage %d", tc.name, stage), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					reg := prometheus.NewRegistry()
					begin := time.Now()
					found, runs := judge(t, PoolOptions{Registerer: reg, Entries: []Entry{
						{Scanner: &fake{"x", tc.scan}, Stage: stage, Required: tc.required, Local: tc.local, Timeout: time.Minute}}})
					if d := time.Since(begin); d > time.Minute+grace && tc.name != "ignores its context" {
						t.Errorf("took %v", d)
					}
					if len(runs) != 1 || runs[0].Name != "x" || runs[0].Required != tc.required || runs[0].Complete != tc.complete || (runs[0].Err == "") != tc.complete {
						t.Errorf("runs %+v", runs)
					}
					if tc.symbol == "" {
						if len(found) > 0 {
							t.Errorf("found %+v", found)
						}
					} else if len(found) == 0 || found[0].Symbol != tc.symbol || found[0].Kind != tc.kind || found[0].Scanner != "x" {
						t.Errorf("found %+v, want %s (%v)", found, tc.symbol, tc.kind)
					}
					if strings.Contains(fmt.Sprint(found, runs), "secret") {
						t.Error("a panic's text came out")
					}
					counted := map[Reason]float64{}
					for _, r := range reasons {
						counted[r] = testutil.ToFloat64(newMust(t, reg).errors.WithLabelValues("x", string(r)))
					}
					for r, n := range counted {
						if want := map[bool]float64{true: 1}[r == tc.reason]; n != want {
							t.Errorf("%v errors of reason %s, want %v", n, r, want)
						}
					}
				})
			})
		}
	}
}

func newMust(t *testing.T, reg prometheus.Registerer) *metrics {
	t.Helper()
	m, err := newMetrics(reg)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// A panic is counted and its stack is logged.
func TestPanicIsCountedAndLogged(t *testing.T) {
	var log bytes.Buffer
	var component string
	judge(t, PoolOptions{
		Log:      slog.New(slog.NewTextHandler(&log, nil)),
		Panicked: func(c string) { component = c },
		Entries: []Entry{{Scanner: &fake{"x", func(context.Context, *Input) (Result, error) {
			var none []int
			return Result{}, fmt.Errorf("%d", none[len(none)])
		}}, Stage: 1}},
	})
	if component != "scanner_x" {
		t.Errorf("component %q", component)
	}
	for _, want := range []string{"level=ERROR", "scanner=x", "queue_id=4Q00081", "index out of range", "pool_test.go"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("log lacks %q: %s", want, log.String())
		}
	}
}

func TestStage2GetsWhatWasFoundBefore(t *testing.T) {
	a := verdict.Finding{Symbol: "A", Kind: verdict.KindSpam, Score: 1}
	b := verdict.Finding{Symbol: "B", Kind: verdict.KindVirus}
	var got []string
	found, runs := judge(t, PoolOptions{Entries: []Entry{
		{Scanner: &fake{"rules", func(_ context.Context, in *Input) (Result, error) {
			for _, f := range in.Findings {
				got = append(got, f.Scanner+" "+f.Symbol)
			}
			return Result{Findings: []verdict.Finding{{Symbol: "C"}}, Complete: true}, nil
		}}, Stage: 2},
		{Scanner: &fake{"one", finds(a)}, Stage: 1},
		{Scanner: &fake{"two", finds(b)}, Stage: 1},
		{Scanner: &fake{"gone", hang}, Stage: 1, Required: true, Timeout: time.Millisecond},
	}})
	if want := []string{"two B", "gone GONE_FAILED", "one A"}; !slices.Equal(got, want) {
		t.Errorf("stage 2 got %q, want %q", got, want)
	}
	if len(runs) != 4 || len(found) != 4 || found[0].Symbol != "B" || found[3].Symbol != "C" {
		t.Errorf("%+v %+v", found, runs)
	}
}

func TestFindingsAreBoundedAndCleaned(t *testing.T) {
	many := make([]verdict.Finding, 3*maxFindings)
	for i := range many {
		many[i] = verdict.Finding{Symbol: "S", Kind: verdict.KindSpam}
	}
	many[len(many)-1] = verdict.Finding{Symbol: "bad\r\nSymbol é", Kind: verdict.KindVirus, Scanner: "other",
		Description: "a\r\nX-Header: b\x00" + strings.Repeat("d", 1000), Detail: "\xff\x1b[2J" + strings.Repeat("e", 1000), Part: strings.Repeat("1.", 1000)}
	found, _ := judge(t, PoolOptions{Entries: []Entry{{Scanner: &fake{"x", finds(many...)}, Stage: 1}}})
	if len(found) != maxFindings+1 {
		t.Errorf("%d findings", len(found))
	}
	f := found[0]
	if f.Symbol != "bad__Symbol__" || f.Scanner != "x" || len(f.Description) > maxDescription || len(f.Detail) > maxDetail || len(f.Part) > maxPart ||
		strings.ContainsAny(f.Description+f.Detail, "\r\n\x00\x1b") || !utf8.ValidString(f.Detail) {
		t.Errorf("%+v", f)
	}
	if found[1].Symbol != "FINDINGS_LIMIT" || found[1].Kind != verdict.KindUnchecked {
		t.Errorf("%+v", found[1])
	}
}

// What the reader says through a scanner that had it render the text stays its own.
func TestTheReadersWordStaysItsOwn(t *testing.T) {
	f := verdict.Finding{Symbol: "TEXT_TOO_LONG", Kind: verdict.KindUnchecked, Scanner: verdict.FinderReader}
	found, _ := judge(t, PoolOptions{Entries: []Entry{{Scanner: &fake{"x", finds(f)}, Stage: 1}}})
	if len(found) != 1 || found[0].Scanner != verdict.FinderReader {
		t.Errorf("%+v", found)
	}
}

// A scanner has no more workers than it is given, and who waits too long has
// failed by a limit.
func TestWorkersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int32
		p := newPool(t, PoolOptions{Entries: []Entry{{Stage: 1, Required: true, Local: true, Workers: 2, Timeout: 35 * time.Second,
			Scanner: &fake{"x", func(context.Context, *Input) (Result, error) {
				most.Store(max(most.Load(), now.Add(1)))
				defer now.Add(-1)
				time.Sleep(10 * time.Second)
				return Result{Complete: true}, nil
			}}}}})
		ctx := t.Context()
		outcomes := make(chan string, 8)
		for range 8 {
			m := whole(t)
			go func() {
				run := p.Start(ctx, inputOf(m))
				defer run.Cancel()
				found, runs := run.Wait(ctx)
				switch {
				case runs[0].Complete:
					outcomes <- fmt.Sprintf("queued %v", runs[0].Queued.Round(time.Second))
				default:
					outcomes <- fmt.Sprint(found[0].Kind, " ", runs[0].Err)
				}
			}()
		}
		count := map[string]int{}
		for range 8 {
			count[<-outcomes]++
		}
		if most.Load() != 2 {
			t.Errorf("%d at a time", most.Load())
		}
		want := map[string]int{"queued 0s": 2, "queued 10s": 2, "queued 20s": 2}
		for k, n := range want {
			if count[k] != n {
				t.Errorf("%q: %d, want %d (%v)", k, count[k], n, count)
			}
		}
		// The fourth pair had five seconds of its time left and overran them.
		if len(count) != 4 {
			t.Errorf("%v", count)
		}
	})
}

func TestNoWorkerInTimeIsALimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, PoolOptions{Entries: []Entry{{Scanner: &fake{"x", func(ctx context.Context, in *Input) (Result, error) {
			time.Sleep(time.Minute)
			return Result{Complete: true}, nil
		}}, Stage: 1, Required: true, Local: true, Workers: 1, Timeout: 2 * time.Minute}}})
		first := p.Start(t.Context(), inputOf(whole(t)))
		synctest.Wait()
		second := p.Start(t.Context(), inputOf(whole(t)))
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		found, runs := second.Wait(ctx)
		if len(found) != 1 || found[0].Kind != verdict.KindFailed || !strings.HasPrefix(runs[0].Err, "limit:") {
			t.Errorf("%+v %+v", found, runs)
		}
		second.Cancel()
		first.Cancel()
	})
}

// Slow senders take at most half of the workers, and their time does not run before
// the message has ended.
func TestSlowSendersStarveNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var streaming atomic.Int32
		x := &early{fake: fake{"x", clean1}, begin: func(ctx context.Context, in *Input) (Result, error) {
			streaming.Add(1)
			defer streaming.Add(-1)
			_, err := io.Copy(io.Discard, in.Message.Reader(ctx, 0))
			return Result{Complete: err == nil}, err
		}}
		p := newPool(t, PoolOptions{Entries: []Entry{{Scanner: x, Stage: 1, Required: true, Workers: 4, Timeout: time.Second}}})
		type slow struct {
			run *Run
			msg *mail.Message
		}
		var slows []slow
		for range 10 {
			m := arriving(t)
			slows = append(slows, slow{p.Start(t.Context(), inputOf(m)), m})
		}
		synctest.Wait()
		if n := streaming.Load(); n != 2 {
			t.Errorf("%d messages are streamed, want 2 of 4 workers", n)
		}
		time.Sleep(time.Hour) // the senders take their time
		quick := p.Start(t.Context(), inputOf(whole(t)))
		if found, runs := quick.Wait(t.Context()); len(found) > 0 || !runs[0].Complete || runs[0].Queued > 0 {
			t.Errorf("quick: %+v %+v", found, runs)
		}
		quick.Cancel()
		for _, s := range slows {
			if err := s.msg.Complete(); err != nil {
				t.Fatal(err)
			}
			if found, runs := s.run.Wait(t.Context()); len(found) > 0 || !runs[0].Complete || runs[0].Took > time.Second {
				t.Errorf("slow: %+v %+v", found, runs)
			}
			s.run.Cancel()
		}
	})
}

// ErrLater gives the worker back until the message is complete.
func TestStalledStreamComesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := &early{fake: fake{"x", clean1}, begin: func(ctx context.Context, in *Input) (Result, error) {
			time.Sleep(5 * time.Second)
			return Result{Findings: []verdict.Finding{{Symbol: "HALF"}}}, ErrLater
		}}
		p := newPool(t, PoolOptions{Entries: []Entry{{Scanner: x, Stage: 1, Required: true, Workers: 2, Timeout: time.Second}}})
		m := arriving(t)
		run := p.Start(t.Context(), inputOf(m))
		time.Sleep(time.Minute)
		synctest.Wait()
		if w := p.stages[0][0]; !w.slots.TryAcquire(2) {
			t.Error("the worker was kept")
		} else {
			w.slots.Release(2)
		}
		if err := m.Complete(); err != nil {
			t.Fatal(err)
		}
		if found, runs := run.Wait(t.Context()); len(found) > 0 || !runs[0].Complete {
			t.Errorf("%+v %+v", found, runs)
		}
		run.Cancel()
	})
}

// An early scan's time is over a time-out after the message's end.
func TestEarlyScanTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, PoolOptions{Entries: []Entry{{Scanner: &early{fake: fake{"x", hang}, begin: hang}, Stage: 1, Required: true, Timeout: time.Minute}}})
		m := arriving(t)
		run := p.Start(t.Context(), inputOf(m))
		time.Sleep(time.Hour)
		if err := m.Complete(); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		found, _ := run.Wait(t.Context())
		if d := time.Since(begin); d != time.Minute {
			t.Errorf("took %v", d)
		}
		if len(found) != 1 || found[0].Kind != verdict.KindFailed {
			t.Errorf("%+v", found)
		}
		run.Cancel()
	})
}

// The message's own deadline counts for all scanners, and an MTA that goes away
// ends them; nothing is left running (synctest would tell).
func TestDeadlineAndCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, PoolOptions{Entries: []Entry{
			{Scanner: &fake{"one", hang}, Stage: 1, Required: true, Timeout: time.Hour},
			{Scanner: &fake{"two", hang}, Stage: 2, Required: true, Timeout: time.Hour},
		}})
		run := p.Start(t.Context(), inputOf(whole(t)))
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
		defer cancel()
		begin := time.Now()
		found, runs := run.Wait(ctx)
		run.Cancel()
		if d := time.Since(begin); d != 4*time.Minute {
			t.Errorf("took %v", d)
		}
		if len(found) != 2 || len(runs) != 2 || runs[0].Complete || runs[1].Complete {
			t.Errorf("%+v %+v", found, runs)
		}

		m := arriving(t) // the MTA goes away amid the body
		run = p.Start(t.Context(), inputOf(m))
		time.Sleep(time.Second)
		m.Abort()
		run.Cancel()

		session, gone := context.WithCancel(t.Context()) // and at the end of it
		run = p.Start(session, inputOf(whole(t)))
		time.AfterFunc(time.Second, gone)
		if _, runs := run.Wait(session); !strings.HasPrefix(runs[0].Err, "canceled:") {
			t.Errorf("%+v", runs)
		}
		run.Cancel()
	})
}

func TestNewPoolRefuses(t *testing.T) {
	x := &fake{"x", clean1}
	for name, entries := range map[string][]Entry{
		"stage 0":          {{Scanner: x}},
		"stage 3":          {{Scanner: x, Stage: 3}},
		"twice":            {{Scanner: x, Stage: 1}, {Scanner: x, Stage: 2}},
		"negative workers": {{Scanner: x, Stage: 1, Workers: -1}},
		"negative timeout": {{Scanner: x, Stage: 1, Timeout: -1}},
	} {
		if _, err := NewPool(PoolOptions{Entries: entries}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// A pool made at a reload goes on with the metrics of the one before.
func TestSecondPoolSharesMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	for range 2 {
		judge(t, PoolOptions{Registerer: reg, Entries: []Entry{{Scanner: &fake{"x", func(context.Context, *Input) (Result, error) {
			return Result{}, io.EOF
		}}, Stage: 1}}})
	}
	if n := testutil.ToFloat64(newMust(t, reg).errors.WithLabelValues("x", string(ReasonInternal))); n != 2 {
		t.Errorf("%v errors counted, want 2", n)
	}
	if n, err := testutil.GatherAndCount(reg, "sluice_queue_wait_seconds", "sluice_scanner_duration_seconds", "sluice_scanner_errors_total"); n != 2+len(reasons) || err != nil {
		t.Errorf("%d series, %v", n, err)
	}
	if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
		t.Error(problems, err)
	}
}
