package scanners

import (
	"context"
	"slices"
	"sync"
	"time"

	"sluice/internal/mail"
	"sluice/internal/verdict"
)

// grace is how long Wait stays for a scanner whose time is over. One that hasn't
// come back then is a scanner with a defect; the message doesn't wait for it.
const grace = 2 * time.Second

// Run is one message in the pool. Wait is called at most once, Cancel always.
type Run struct {
	pool   *Pool
	in     *Input
	ctx    context.Context // ends with the message; see New's ctx
	cancel context.CancelCauseFunc
	stage1 []*task
	reader *task
	work   sync.WaitGroup
}

// Start puts a message into the pool, whose header section must be complete: the
// reader begins, and the scanners of stage 1 that can, while it still arrives.
// ctx ends with the session. The caller must call Cancel before it closes the
// message.
func (p *Pool) Start(ctx context.Context, in *Input) *Run {
	r := &Run{pool: p, in: in}
	r.ctx, r.cancel = context.WithCancelCause(ctx)
	r.reader = r.task(p.readerOf(in.Message), in)
	r.stage1 = r.stage(p.stages[0], in)
	return r
}

// Wait waits for the scanners of stage 1, runs those of stage 2 with what was found,
// and returns all findings, the reader's too, in the order of verdict.Sort, and one
// ScannerRun a scanner. The message must be complete (or aborted). ctx bears the
// message's one deadline; when it ends, whoever has not answered has failed, and Wait
// returns within two seconds. It never fails.
func (r *Run) Wait(ctx context.Context) ([]verdict.Finding, []verdict.ScannerRun) {
	stop := context.AfterFunc(ctx, func() { r.cancel(context.Cause(ctx)) })
	defer stop()
	var found []verdict.Finding
	runs := make([]verdict.ScannerRun, 0, len(r.stage1)+len(r.pool.stages[1]))

	for _, t := range r.stage1 {
		t.arm()
	}
	r.reader.arm()
	read, _ := r.reader.settle()
	found = append(found, read...)
	for _, t := range r.stage1 {
		fs, run := t.settle()
		found, runs = append(found, fs...), append(runs, run)
	}
	if len(r.pool.stages[1]) > 0 {
		in := *r.in
		in.Findings = slices.Clone(found)
		verdict.Sort(in.Findings)
		stage2 := r.stage(r.pool.stages[1], &in)
		for _, t := range stage2 {
			t.arm()
		}
		for _, t := range stage2 {
			fs, run := t.settle()
			found, runs = append(found, fs...), append(runs, run)
		}
	}
	verdict.Sort(found)
	return found, runs
}

// Cancel ends what still runs and waits for it. It may be called more than once,
// and does nothing of note after a Wait in which everyone answered.
func (r *Run) Cancel() {
	r.cancel(context.Canceled)
	r.work.Wait()
}

func (r *Run) stage(ws []*worker, in *Input) []*task {
	ts := make([]*task, len(ws))
	for i, w := range ws {
		ts[i] = r.task(w, in)
	}
	return ts
}

// task starts one scanner on the message.
func (r *Run) task(w *worker, in *Input) *task {
	t := &task{w: w, pool: r.pool, done: make(chan struct{})}
	t.ctx, t.cancel = context.WithCancelCause(r.ctx)
	r.pool.runs.Add(1)
	r.work.Go(func() {
		defer r.pool.runs.Done()
		defer close(t.done)
		t.run(in)
	})
	return t
}

// reader is the reading of the message's parts, run as if it were a scanner.
type reader struct{ msg *mail.Message }

func (reader) Name() string { return verdict.FinderReader }

func (r reader) Scan(ctx context.Context, in *Input) (Result, error) {
	tree, err := r.msg.Tree(ctx)
	if err != nil {
		return Result{}, err
	}
	return Result{Findings: tree.Findings, Complete: true}, nil
}

func (r reader) ScanEarly(ctx context.Context, in *Input) (Result, error) { return r.Scan(ctx, in) }

// readerOf returns a worker for the reader. It has as many slots as there are
// messages, and never fails otherwise than by KindUnchecked.
func (p *Pool) readerOf(msg *mail.Message) *worker {
	return &worker{name: verdict.FinderReader, Entry: Entry{Scanner: reader{msg}, Stage: 1, Local: true, Timeout: DefaultTimeout}}
}
