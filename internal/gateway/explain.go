package gateway

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"sluice/internal/verdict"
	"sluice/policy"
)

// Report is what `sluice scan --json` prints for one message, one line each. Its
// members are a promise: some may be added, none renamed or removed.
type Report struct {
	File     string            `json:"file"`
	Class    verdict.Class     `json:"class"`
	Score    verdict.Score     `json:"score"`
	Action   verdict.Action    `json:"action"`
	Findings []verdict.Finding `json:"findings"`
	Errors   []string          `json:"errors"`
	// Elapsed is the time the examination took, in milliseconds.
	Elapsed float64 `json:"elapsed_ms"`
	// Recipients says what was decided for each, if there was more than one.
	Recipients []RecipientReport `json:"recipients,omitempty"`
}

// RecipientReport is one recipient's share of a Report.
type RecipientReport struct {
	Recipient string          `json:"recipient"`
	Class     verdict.Class   `json:"class"`
	Classes   []verdict.Class `json:"classes"`
	Score     verdict.Score   `json:"score"`
	Action    verdict.Action  `json:"action"`
	Policy    string          `json:"policy"`
	Reason    string          `json:"reason"`
}

// Report makes the report of an examination: class, score and action are those of
// the recipient who fares worst.
func (e *Examination) Report(file string, took time.Duration) Report {
	worst := e.Worst()
	r := Report{
		File: file, Class: worst.Class, Score: worst.Score, Action: worst.Action,
		Findings: e.findings(), Errors: append([]string{}, e.Verdict.Errors()...),
		Elapsed: milliseconds(took),
	}
	ds := e.Outcome.Disposition.Decisions
	if len(ds) < 2 {
		return r
	}
	for i := range ds {
		d := &ds[i]
		r.Recipients = append(r.Recipients, RecipientReport{
			d.Recipient, d.Class, append([]verdict.Class{}, d.Classes...), d.Score, d.Action, d.Policy, d.Reason,
		})
	}
	return r
}

// FailedReport is the report of a message that could not be examined.
func FailedReport(file string, err error, took time.Duration) Report {
	return Report{
		File: file, Class: verdict.ClassFailed, Action: verdict.Tempfail, Findings: []verdict.Finding{},
		Errors: []string{verdict.Printable(err.Error(), 512)}, Elapsed: milliseconds(took),
	}
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// WriteLine writes the report as one line of JSON.
func (r Report) WriteLine(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(r)
}

// maxExplained bounds the findings that Explain lists.
const maxExplained = 200

// Explain tells in plain words what was found, what each recipient's policy made
// of it, and what the message would bear.
func (e *Examination) Explain(w io.Writer) error {
	p := &printer{w: w}
	p.line("Message of %d bytes, %s%s.", e.Verdict.Size, e.Direction, map[bool]string{true: ", from one of our relays"}[e.Relay])
	if !e.Author.IsNull() {
		p.line("Author (From:): %s", verdict.Printable(e.Author.String(), loggedAddress))
	}
	p.line("")
	e.explainScanners(p)
	e.explainFindings(p)
	for i := range e.Outcome.Disposition.Decisions {
		e.explainDecision(p, i)
	}
	e.explainOutcome(p)
	return p.err
}

func (e *Examination) explainScanners(p *printer) {
	if len(e.Verdict.Scanners) == 0 {
		p.line("No scanner is switched on: only the message's form was looked at.")
	}
	for _, r := range e.Verdict.Scanners {
		switch {
		case r.Complete:
			p.line("%s looked at the whole message (%s).", r.Name, r.Took.Round(time.Millisecond))
		case r.Required:
			p.line("%s gave no definite answer: %s. It is required.", r.Name, r.Err)
		default:
			p.line("%s gave no definite answer: %s. It is not required.", r.Name, r.Err)
		}
	}
	p.line("")
}

func (e *Examination) explainFindings(p *printer) {
	fs := e.findings()
	if len(fs) == 0 {
		p.line("Nothing was found.")
	} else {
		p.line("What was found:")
	}
	for i := range fs[:min(len(fs), maxExplained)] {
		f := &fs[i]
		score := ""
		if f.Kind == verdict.KindSpam || f.Kind == verdict.KindAuth {
			score = f.Score.String()
		}
		where := f.Scanner
		if f.Part != "" {
			where += ", part " + f.Part
		}
		text := f.Description
		if f.Detail != "" {
			text = strings.TrimSpace(text + " [" + f.Detail + "]")
		}
		p.line("  %8s  %-9s %s (%s): %s", score, f.Kind, f.Symbol, where, text)
	}
	if more := len(fs) - maxExplained; more > 0 {
		p.line("  … and %d more", more)
	}
	p.line("")
}

// meanings say what a class is about, for people.
var meanings = map[verdict.Class]string{
	verdict.ClassClean:     "nothing stands against it",
	verdict.ClassMarked:    "it looks like spam",
	verdict.ClassUnchecked: "it has content that could not be looked at",
	verdict.ClassFailed:    "a scanner that has to answer did not",
	verdict.ClassSpam:      "its score reaches kill_score, or a list or its author's domain says so",
	verdict.ClassAmbiguous: "mail programs would read it differently",
	verdict.ClassBanned:    "it has content that the policy bans",
	verdict.ClassVirus:     "it has malware in it",
}

func (e *Examination) explainDecision(p *printer, i int) {
	d := &e.Outcome.Disposition.Decisions[i]
	who := verdict.Printable(d.Recipient, loggedAddress)
	if who == "" {
		who = "anybody (no recipient was given)"
	}
	p.line("For %s: %s, because the message counts as %s (%s).", who, d.Action, d.Class, meanings[d.Class])
	if d.Reason != "" {
		p.line("  Reason: %s", d.Reason)
	}
	p.line("  Decided by: %s", d.Policy)
	p.line("  Score %s; marked from %s, stopped from %s.", d.Score, d.Mark, d.Kill)
	for _, c := range d.Classes {
		if c != d.Class {
			p.line("  It is also %s (%s), whose action is less severe or equal.", c, meanings[c])
		}
	}
	if i < len(e.Outcome.Carried) && e.Outcome.Carried[i] != d.Action {
		p.line("  Carried out as: %s.", e.Outcome.Carried[i])
	}
	p.line("")
}

func (e *Examination) explainOutcome(p *printer) {
	d := &e.Disposition
	switch {
	case !d.Reply.Accepted():
		p.line("The MTA would be told: %d %s %s", d.Reply.Code, d.Reply.Enhanced, d.Reply.Text)
	case d.Discard:
		p.line("The MTA would be told 250 and to throw the message away.")
	default:
		p.line("The message would go on.")
	}
	for _, r := range d.RemoveRecipients {
		p.line("  taken off the envelope: %s", verdict.Printable(r, loggedAddress))
	}
	for _, r := range d.AddRecipients {
		p.line("  put on the envelope: %s", verdict.Printable(r, loggedAddress))
	}
	for _, f := range d.Fields {
		name := verdict.Printable(f.Name, 128)
		switch f.Op {
		case policy.DeleteField:
			p.line("  field removed: %s (number %d of that name)", name, f.Index)
		case policy.ReplaceField:
			p.line("  field changed: %s: %s", name, oneLine(f.Value))
		default:
			p.line("  field added: %s: %s", name, oneLine(f.Value))
		}
	}
	for _, n := range d.Notes {
		p.line("  note: %s", n)
	}
}

func oneLine(s string) string {
	return verdict.Printable(strings.NewReplacer("\n\t", "", "\n ", " ").Replace(s), 1000)
}

// printer writes lines until one fails.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format+"\n", args...)
	}
}
