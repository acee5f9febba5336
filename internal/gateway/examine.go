package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"sluice/internal/envelope"
	"sluice/internal/mail"
	"sluice/internal/verdict"
	"sluice/policy"
	"sluice/scanners"
)

// Why a message could not be judged.
var (
	errNoPolicies = errors.New("no policies were ever loaded")
	errNoHeader   = errors.New("message has no header section")
	// errLongHeader: a policy would deliver what may bear forged fields that can't be
	// taken off.
	errLongHeader = errors.New("header section is too long to take forged fields off it")
	errGone       = errors.New("MTA went away before the reply")
	errJournal    = errors.New("journal panicked")
)

// Examination is all that is known and decided about one message. Read-only.
type Examination struct {
	ID        string
	Envelope  *envelope.Envelope
	Direction envelope.Direction
	Relay     bool
	Author    envelope.Address
	Verdict   *verdict.Verdict
	// Policies are those that decided, in the order of the decisions.
	Policies         []*policy.Effective
	PolicyGeneration int64
	Outcome          policy.Outcome
	// Disposition is Outcome's, with the header changes.
	Disposition policy.Disposition
}

// Examine judges a complete message as Finish does, without a record, a log line or
// a count: what `sluice scan` shows. An envelope without recipients is decided on by
// the policy for everyone ("@."). The message stays the caller's.
func (g *Gateway) Examine(ctx context.Context, env *envelope.Envelope, msg *mail.Message) (*Examination, error) {
	set := g.acquire()
	defer g.release(set)
	ctx, stop := context.WithTimeout(ctx, set.Timeout)
	defer stop()
	run := g.scan(ctx, set, env, msg)
	defer run.Cancel()
	return g.examine(ctx, set, run, env, msg, g.newID())
}

// examine waits for the scanners, asks policy for each recipient and writes the
// header changes.
func (g *Gateway) examine(ctx context.Context, set *snapshot, run *scanners.Run, env *envelope.Envelope, msg *mail.Message, id string) (*Examination, error) {
	header := msg.Header()
	if header == nil {
		return nil, errNoHeader
	}
	findings, runs := run.Wait(ctx)
	if errors.Is(ctx.Err(), context.Canceled) {
		return nil, errGone
	}
	// Not ctx: if its time is over, the scanners have said so in their findings.
	if _, err := msg.Reader(context.WithoutCancel(ctx), msg.Size()).Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("message is not complete: %w", err)
	}
	findings = append(findings, ownFindings(header)...)
	verdict.Sort(findings)
	e := &Examination{
		ID: id, Envelope: env, Direction: set.Origin.direction(env), Relay: set.Origin.isRelay(env),
		Author:  author(header.Fields),
		Verdict: &verdict.Verdict{Findings: findings, Scanners: runs, Size: msg.Size(), Digest: msg.Digest()},
	}
	began := g.now()
	snap := set.Policies()
	if snap == nil {
		return nil, errNoPolicies
	}
	e.PolicyGeneration = snap.Generation
	e.decide(snap, set)
	g.metrics.lookup.WithLabelValues(set.PolicySource).Observe(g.now().Sub(began).Seconds())
	e.Disposition = e.Outcome.Disposition
	if e.goesOn() {
		if header.Truncated && !e.Outcome.Bearing.Untouched {
			return nil, errLongHeader
		}
		e.Disposition.Fields = fieldChanges(e.Outcome.Bearing, bearer{
			verdict: e.Verdict, header: header.Fields, id: id,
			host: set.Identity.host(env), ids: set.Identity.authservIDs(env), virusWanted: e.virusWanted(),
		})
	}
	return e, nil
}

// decide asks policy for each recipient and combines the answers.
func (e *Examination) decide(snap *policy.Snapshot, set *snapshot) {
	c := &policy.Case{
		Verdict: e.Verdict, Envelope: e.Envelope, Direction: e.Direction, Author: e.Author,
		Relay: e.Relay && !set.Origin.RelayReject, Local: e.Envelope.Local, ID: e.ID,
	}
	rcpts := e.Envelope.Recipients
	if len(rcpts) == 0 {
		rcpts = []envelope.Recipient{{}}
	}
	ds := make([]verdict.Decision, len(rcpts))
	e.Policies = make([]*policy.Effective, len(rcpts))
	by := decider{c: c, ruled: make(map[*policy.Effective]ruling, 1)}
	if e.Direction == envelope.Outbound {
		by.out = snap.Outbound(policy.Identity(e.Envelope))
	}
	for i, r := range rcpts {
		var in *policy.Effective
		if by.out == nil || snap.HasInbound(r.Address) {
			in = snap.Inbound(r.Address)
		}
		ruled := by.rule(r, in)
		ds[i], e.Policies[i] = ruled.decision, ruled.policy
		ds[i].Recipient = r.Address.String()
	}
	e.Outcome = policy.Combine(c, ds, e.Policies, set.Capabilities)
}

// decider decides once for all recipients under one policy: what is decided for
// them differs by their address alone, and 50,000 of them share what counted.
type decider struct {
	c     *policy.Case
	out   *policy.Effective // the sender's policy, nil for inbound mail
	ruled map[*policy.Effective]ruling
}

type ruling struct {
	decision verdict.Decision
	policy   *policy.Effective
}

// rule decides for r, whose inbound policy is in; for originating mail it is nil
// if only the one for everyone applies.
func (d *decider) rule(r envelope.Recipient, in *policy.Effective) ruling {
	if known, ok := d.ruled[in]; ok {
		return known
	}
	var made ruling
	switch {
	case d.out == nil:
		made = ruling{policy.Decide(d.c, r, in), in}
	case in == nil:
		made = ruling{policy.Decide(d.c, r, d.out), d.out}
	default: // one of our users is not a way past another's policy
		inbound := *d.c
		inbound.Direction = envelope.Inbound
		mine, his := policy.Decide(d.c, r, d.out), policy.Decide(&inbound, r, in)
		made.decision, made.policy = policy.Originating(mine, his, d.out, in)
	}
	d.ruled[in] = made
	return made
}

// goesOn reports whether the message is delivered to somebody.
func (e *Examination) goesOn() bool {
	return e.Outcome.Disposition.Reply.Accepted() && !e.Outcome.Disposition.Discard
}

// staying lists the indexes of the recipients who get the message.
func (e *Examination) staying() []int {
	if !e.goesOn() {
		return nil
	}
	var left []int
	for i, a := range e.Outcome.Carried {
		if a.Delivers() {
			left = append(left, i)
		}
	}
	return left
}

func (e *Examination) virusWanted() bool {
	return slices.ContainsFunc(e.staying(), func(i int) bool { return e.Policies[i].ScanVirus })
}

// Worst returns the recipients' gravest decision: the most severe action, then the
// greatest class, then the highest score.
func (e *Examination) Worst() verdict.Decision {
	var worst verdict.Decision
	for i, d := range e.Outcome.Disposition.Decisions {
		if i == 0 || d.Action > worst.Action || d.Action == worst.Action &&
			(d.Class > worst.Class || d.Class == worst.Class && d.Score > worst.Score) {
			worst = d
		}
	}
	return worst
}

// findings are what scanners, reader and gateway found and, first, what policy
// itself found to decide by (SIZE_LIMIT, a denied sender): the worst recipient's.
func (e *Examination) findings() []verdict.Finding {
	worst := e.Worst()
	fs := make([]verdict.Finding, 0, len(e.Verdict.Findings)+2)
	if c := worst.Cause; c != nil && c.Scanner == verdict.FinderPolicy {
		fs = append(fs, *c)
	}
	for _, f := range worst.Symbols {
		if f.Scanner == verdict.FinderPolicy && !slices.Contains(fs, f) {
			fs = append(fs, f)
		}
	}
	return append(fs, e.Verdict.Findings...)
}

// Action says in one word what is done to the message as a whole.
func (e *Examination) Action() verdict.Action {
	d := &e.Outcome.Disposition
	switch {
	case d.Reply.Code >= 500:
		return verdict.Reject
	case d.Reply.Code >= 400:
		return verdict.Tempfail
	case d.Discard:
		return max(verdict.Redirect, slices.Max(e.Outcome.Carried))
	}
	done := verdict.Accept
	for _, i := range e.staying() {
		done = max(done, e.Outcome.Carried[i])
	}
	return done
}

// bypasses lists why the message went on although something stood against it.
func (e *Examination) bypasses() []string {
	var reasons []string
	add := func(r string) {
		if !slices.Contains(reasons, r) {
			reasons = append(reasons, r)
		}
	}
	for _, i := range e.staying() {
		d := &e.Outcome.Disposition.Decisions[i]
		if d.Has(verdict.ClassFailed) {
			add(bypassFailed)
		}
		if d.Has(verdict.ClassUnchecked) {
			add(bypassUnchecked)
		}
		if e.Policies[i].Observe && !d.Action.Delivers() {
			add(bypassObserve)
		}
	}
	return reasons
}

// maxForged is how many forged fields are ordinary.
const maxForged = 1000

// ownFindings are what the gateway itself sees in the header.
func ownFindings(h *mail.Header) []verdict.Finding {
	var fs []verdict.Finding
	forged, ticket := 0, false
	for _, f := range h.Fields {
		ticket = ticket || isNamed(f.Name, ticketField)
		if isVerdictField(f.Name) || isResults(f.Name) {
			forged++
		}
	}
	if ticket {
		fs = append(fs, verdict.Finding{
			Symbol: "SLUICE_TICKET_INVALID", Kind: verdict.KindInfo, Scanner: verdict.FinderGateway,
			Description: "The message bears a ticket that is not ours to honour; it was filtered as new",
		})
	}
	if h.Truncated {
		fs = append(fs, verdict.Finding{
			Symbol: "SLUICE_HEADER_LIMIT", Kind: verdict.KindAmbiguous, Scanner: verdict.FinderGateway,
			Description: "The header section is longer than filters read, and mail programs may show what they did not",
		})
	}
	if forged > maxForged {
		fs = append(fs, verdict.Finding{
			Symbol: "SLUICE_FIELD_FLOOD", Kind: verdict.KindAmbiguous, Scanner: verdict.FinderGateway,
			Description: "The message bears more fields that pretend to be a filter's than any filter writes",
			Detail:      fmt.Sprintf("%d fields", forged),
		})
	}
	return fs
}
