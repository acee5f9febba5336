package scanners

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"sluice/internal/mail"
	"sluice/internal/verdict"
)

// maxFindings is the most findings that one scanner may leave on one message.
const maxFindings = 1000

// Longest texts in bytes (verdict.Finding).
const (
	maxSymbol      = 128
	maxDescription = 256
	maxDetail      = 512
	maxPart        = 128
)

var (
	errStuck    = errors.New("did not come back after its time was over")
	errSilent   = &Error{ReasonProtocol, errors.New("no definite answer and no word of what was not looked at")}
	errNotWhole = "not everything could be looked at"
)

// settle waits for the task and says what it means for the message.
func (t *task) settle() ([]verdict.Finding, verdict.ScannerRun) {
	defer t.cancel(context.Canceled)
	defer t.timer.Stop()
	run := verdict.ScannerRun{Name: t.w.name, Required: t.w.Required}
	var o outcome
	if t.wait() {
		o = t.outcome
	} else {
		o.err = fmt.Errorf("%w: %w", errStuck, context.Cause(t.ctx))
		o.took = t.w.Timeout
	}
	run.Queued, run.Took = o.queued, o.took
	found := clean(t.w.name, o.result.Findings)
	if o.err == nil && !o.result.Complete && !tells(found) {
		o.err = errSilent
	}
	switch {
	case o.err != nil:
		reason := t.reasonOf(o.err)
		run.Err = verdict.Printable(fmt.Sprintf("%s: %v", reason, o.err), maxDetail)
		found = append(found, t.w.failure(reason, o.err))
		if c := t.w.metrics.errors[reason]; c != nil {
			c.Inc()
		}
	case !o.result.Complete:
		run.Err = errNotWhole
	default:
		run.Complete = true
	}
	return found, run
}

// tells reports whether a finding says what was not looked at.
func tells(fs []verdict.Finding) bool {
	for i := range fs {
		if fs[i].Kind == verdict.KindUnchecked {
			return true
		}
	}
	return false
}

// reasonOf finds the reason of an error. The end of the task's own context comes
// first, since whatever the scanner says then is only its echo.
func (t *task) reasonOf(err error) Reason {
	var e *Error
	named := errors.As(err, &e)
	switch {
	case named && (e.Reason == ReasonPanic || e.Reason == ReasonLimit):
		return e.Reason
	case errors.Is(err, mail.ErrAborted):
		return ReasonCanceled
	case t.ctx.Err() != nil && errors.Is(context.Cause(t.ctx), context.DeadlineExceeded):
		return ReasonTimeout
	case t.ctx.Err() != nil:
		return ReasonCanceled
	case named && known(e.Reason):
		return e.Reason
	case errors.Is(err, context.DeadlineExceeded):
		return ReasonTimeout
	}
	return ReasonInternal
}

func known(r Reason) bool {
	for _, k := range reasons {
		if r == k {
			return true
		}
	}
	return false
}

// failure is the finding that stands for a missing answer (DESIGN §3).
func (w *worker) failure(reason Reason, err error) verdict.Finding {
	f := verdict.Finding{
		Symbol:  strings.ToUpper(symbol(w.name)),
		Scanner: w.name,
		Detail:  verdict.Printable(err.Error(), maxDetail),
	}
	reader := w.name == verdict.FinderReader
	switch {
	case reason == ReasonPanic:
		f.Kind, f.Symbol = verdict.KindUnchecked, f.Symbol+"_PANIC"
		f.Description = w.name + " crashed on this message"
	case (w.Local || reader) && reason == ReasonTimeout:
		f.Kind, f.Symbol = verdict.KindUnchecked, f.Symbol+"_BUDGET"
		f.Description = w.name + " did not finish this message in its time"
	case reader:
		f.Kind, f.Symbol = verdict.KindUnchecked, f.Symbol+"_FAILED"
		f.Description = "The parts of the message could not be read"
	case w.Required:
		f.Kind, f.Symbol = verdict.KindFailed, f.Symbol+"_FAILED"
		f.Description = "No definite answer from " + w.name + " (" + string(reason) + ")"
	default:
		f.Kind, f.Symbol = verdict.KindInfo, f.Symbol+"_FAILED"
		f.Description = "No definite answer from " + w.name + " (" + string(reason) + ")"
	}
	return f
}

// clean returns a copy of fs with bounds kept and foreign text made harmless.
func clean(scanner string, fs []verdict.Finding) []verdict.Finding {
	out := make([]verdict.Finding, 0, min(len(fs), maxFindings)+1)
	out = append(out, fs...)
	if len(out) > maxFindings {
		verdict.Sort(out) // what is cut off is the least grave
		out = append(out[:maxFindings:maxFindings], verdict.Finding{
			Symbol: "FINDINGS_LIMIT", Kind: verdict.KindUnchecked,
			Description: "More findings than are kept; the least grave were dropped",
			Detail:      fmt.Sprintf("%d findings", len(fs)),
		})
	}
	for i := range out {
		f := &out[i]
		f.Symbol = symbol(f.Symbol)
		f.Description = verdict.Printable(f.Description, maxDescription)
		f.Detail = verdict.Printable(f.Detail, maxDetail)
		f.Part = verdict.Printable(f.Part, maxPart)
		if f.Scanner != verdict.FinderReader { // what the reader could not render is its own word
			f.Scanner = scanner
		}
	}
	return out
}

// symbol returns s as a symbol: letters, digits and '_'.
func symbol(s string) string {
	ok := func(r rune) bool {
		return r == '_' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z'
	}
	if s != "" && len(s) <= maxSymbol && strings.IndexFunc(s, func(r rune) bool { return !ok(r) }) < 0 {
		return s
	}
	s = strings.Map(func(r rune) rune {
		if ok(r) {
			return r
		}
		return '_'
	}, s)
	if s == "" {
		return "UNNAMED"
	}
	return s[:min(len(s), maxSymbol)]
}
