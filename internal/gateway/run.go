package gateway

import (
	"context"
	"time"

	"sluice/internal/envelope"
	"sluice/internal/mail"
	"sluice/internal/verdict"
	"sluice/policy"
	"sluice/scanners"
)

// Run is one message on its way through the gateway. It is used by one session:
// Finish and then Answered are called, or Abandon, once and in this order.
type Run struct {
	g    *Gateway
	set  *snapshot
	env  *envelope.Envelope
	msg  *mail.Message
	scan *scanners.Run // nil if it could not be started
	id   string

	began, ended time.Time // header complete; end of message read
	examined     *Examination
	disposition  policy.Disposition
	trouble      string // why there is no decision
	released     bool
}

// ID returns the record's ID, which replies and X-Sluice-ID bear.
func (r *Run) ID() string { return r.id }

// reserve is the part of the budget that is kept for record and reply.
func reserve(budget time.Duration) time.Duration { return min(10*time.Second, budget/8) }

// Finish waits for the scanners, decides, keeps the record and returns what to do.
// It never fails: what goes wrong is a 451.
func (r *Run) Finish(ctx context.Context, queueID string) policy.Disposition {
	r.ended = r.g.now()
	if queueID != "" && r.env.QueueID != queueID {
		env := *r.env
		env.QueueID = queueID
		r.env = &env
	}
	whole := context.WithoutCancel(ctx) // the record is kept though the MTA goes away
	whole, stop := context.WithTimeout(whole, r.set.Timeout)
	defer stop()
	r.judge(ctx)
	if err := r.record(whole); err != nil {
		r.g.metrics.recordErrors.Inc()
		r.g.log.Error("record not kept, message deferred", "queue_id", r.env.QueueID, "session_id", r.env.SessionID, "id", r.id, "err", err)
		r.trouble = "record not kept"
		r.disposition = deferral(r.id)
	}
	return r.disposition
}

// judge fills in the disposition.
func (r *Run) judge(ctx context.Context) {
	defer func() {
		if v := recover(); v != nil {
			r.trouble = r.g.panicked(v, r.env, r.id)
		}
		if r.trouble != "" {
			r.disposition = deferral(r.id)
		}
	}()
	if r.trouble != "" {
		return
	}
	ctx, stop := context.WithTimeout(ctx, r.set.Timeout-reserve(r.set.Timeout))
	defer stop()
	e, err := r.g.examine(ctx, r.set, r.scan, r.env, r.msg, r.id)
	if err != nil {
		r.trouble = verdict.Printable(err.Error(), 256)
		return
	}
	r.examined, r.disposition = e, e.Disposition
}

// deferral is the disposition of a message that could not be judged.
func deferral(id string) policy.Disposition {
	return policy.Disposition{Reply: policy.Reply{
		Code: 451, Enhanced: "4.3.0", Text: "Temporary trouble, please try again later (id " + ascii(id, 64) + ")",
	}}
}

// record keeps the record. A panic of the journal is an error of it.
func (r *Run) record(ctx context.Context) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = errJournal
			r.g.panicked(v, r.env, r.id)
		}
	}()
	rec := &Record{
		ID: r.id, QueueID: r.env.QueueID, Time: r.ended, Envelope: r.env,
		Direction: r.set.Origin.direction(r.env), Relay: r.set.Origin.isRelay(r.env),
		Disposition: r.disposition, Trouble: r.trouble, Class: verdict.ClassFailed,
	}
	if e := r.examined; e != nil {
		worst := e.Worst()
		rec.Author, rec.Verdict, rec.PolicyGeneration = e.Author, e.Verdict, e.PolicyGeneration
		rec.Class, rec.Score = worst.Class, worst.Score
		rec.Carried = e.Outcome.Carried
	}
	return r.g.journal.Record(ctx, rec)
}

// Answered is told whether the reply could be written. It counts, writes the log
// line and releases the message.
func (r *Run) Answered(err error) {
	if r.released {
		return
	}
	defer r.release()
	took := r.g.now().Sub(r.ended)
	r.count(took, err)
	r.logAnswered(took, err)
	r.g.journal.Answered(r.id, err)
}

// Abandon ends a message that had no end of message: it counts, writes the log
// line and releases the message.
func (r *Run) Abandon(reason string) {
	if r.released {
		return
	}
	defer r.release()
	r.g.metrics.abandoned.Inc()
	r.logAbandoned(reason)
}

// release waits for whoever reads the message and gives it back. It is deferred,
// and recovers a panic of its caller.
func (r *Run) release() {
	r.released = true
	if v := recover(); v != nil {
		r.g.panicked(v, r.env, r.id)
	}
	r.msg.Abort()
	if r.scan != nil {
		r.scan.Cancel()
	}
	if err := r.msg.Close(); err != nil {
		r.g.log.Warn("message not released cleanly", "queue_id", r.env.QueueID, "session_id", r.env.SessionID, "id", r.id, "err", err)
	}
	r.g.inFlight.Add(-1)
	r.g.release(r.set)
}

// count puts the message into the metrics.
func (r *Run) count(took time.Duration, replyErr error) {
	m := r.g.metrics
	m.duration.Observe(took.Seconds())
	m.size.Observe(float64(r.msg.Size()))
	if replyErr != nil {
		m.unanswered.Inc()
	}
	direction := r.set.Origin.direction(r.env).String()
	if r.examined == nil || r.trouble != "" {
		m.messages.WithLabelValues(direction, verdict.ClassFailed.String(), verdict.Tempfail.String()).Inc()
		return
	}
	e := r.examined
	m.messages.WithLabelValues(direction, e.Worst().Class.String(), e.Action().String()).Inc()
	m.split.Add(float64(e.Outcome.Split))
	m.compromise.Add(float64(e.Outcome.Compromise))
	for _, reason := range e.bypasses() {
		m.bypass.WithLabelValues(reason).Inc()
	}
}
