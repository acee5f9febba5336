package rules

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"sluice/internal/verdict"
	"sluice/scanners"
)

// Name is the scanner's name and the key of its section in the configuration.
const Name = "rules"

// SymbolPartial is the symbol of the finding that says that a message's budget
// ran out before all rules had run.
const SymbolPartial = "RULES_PARTIAL"

// SymbolCut is the symbol of the finding that says that a text which loaded rules
// look at is longer than what they were shown of it.
const SymbolCut = "RULES_TEXT_CUT"

// DefaultBudget is the time all rules together may take for one message. Ours
// take less than a millisecond for most mail.
const DefaultBudget = 5 * time.Second

// Scanner runs a Ruleset over messages. Safe for concurrent use.
type Scanner struct {
	set    *Ruleset
	budget time.Duration
}

var _ scanners.Scanner = (*Scanner)(nil)

// New makes a scanner of a set. A budget of 0 is DefaultBudget. It needs no
// closing.
func New(set *Ruleset, budget time.Duration) *Scanner {
	if budget <= 0 {
		budget = DefaultBudget
	}
	return &Scanner{set: set, budget: budget}
}

// Name returns "rules".
func (s *Scanner) Name() string { return Name }

// Ruleset returns the set that it runs.
func (s *Scanner) Ruleset() *Ruleset { return s.set }

// Scan judges one message by all rules. It is for stage 2: in.Findings are the
// symbols of stage 1. Each hit is a finding of KindSpam. When the budget or
// ctx's deadline runs out the hits so far are returned with SymbolPartial
// (KindUnchecked) and Complete false; a text that was cut leaves SymbolCut. The error is that of the message's
// reader, or ctx's if it was canceled.
func (s *Scanner) Scan(ctx context.Context, in *scanners.Input) (scanners.Result, error) {
	m, err := view(ctx, in)
	if err != nil {
		return scanners.Result{}, fmt.Errorf("rules: %w", err)
	}
	out, err := s.set.evaluate(ctx, m, s.budget)
	if err != nil {
		return scanners.Result{}, fmt.Errorf("rules: %w", err)
	}
	if err := ctx.Err(); errors.Is(err, context.Canceled) {
		return scanners.Result{}, fmt.Errorf("rules: %w", err)
	}
	res := scanners.Result{Findings: out.findings, Complete: !out.partial}
	if out.partial {
		res.Findings = append(res.Findings, verdict.Finding{Symbol: SymbolPartial, Kind: verdict.KindUnchecked, Scanner: Name,
			Description: "the time for rules ran out: not all of them were run"})
	}
	if len(out.cuts) > 0 {
		res.Findings = append(res.Findings, verdict.Finding{Symbol: SymbolCut, Kind: verdict.KindUnchecked, Scanner: Name,
			Description: "not looked at by rules: " + strings.Join(out.cuts, ", ")})
	}
	// What the reader could not render it says itself, and it counts for everyone.
	res.Findings = append(res.Findings, m.content.Findings...)
	return res, nil
}
