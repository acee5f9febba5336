package rules

import (
	"fmt"
	"strconv"
	"strings"
)

// Severity says how grave a Problem is. The zero value is Notice.
type Severity uint8

// The severities, the least first.
const (
	// Notice: nothing that judges mail is lost: a setting that has no meaning
	// here, a meta that names what no file defines.
	Notice Severity = iota
	// Unsupported: SpamAssassin could run it, this build can't; the rule is out.
	Unsupported
	// Mistake: nobody could run it; the line is out.
	Mistake
)

var severityNames = [...]string{"notice", "unsupported", "mistake"}

// String returns the severity's word.
func (s Severity) String() string {
	if int(s) < len(severityNames) {
		return severityNames[s]
	}
	return "unknown(" + strconv.Itoa(int(s)) + ")"
}

// Problem is one thing in a .cf file that is not run as it was written. It is a
// plain value; its strings are printable and bounded.
type Problem struct {
	// File is the path as it was opened, "builtin/…" for our own set; Line counts
	// from 1, 0 if the whole file is meant.
	File string
	Line int
	// Rule is the rule that is out because of it, "" if it isn't about one.
	Rule     string
	Severity Severity
	// Why is a short stable word to count by: "eval", "plugin", "regex",
	// "dependency", "setting", "syntax", "limit", "undefined", "header".
	Why string
	// What says what is wrong, Remedy what to do about it.
	What, Remedy string
	// Count is how many lines of the same kind in this file it stands for, at
	// least 1.
	Count int
}

// String prints the problem on one line: file:line: rule: what (remedy).
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
	}
	b.WriteString(": ")
	if p.Rule != "" {
		b.WriteString(p.Rule + ": ")
	}
	b.WriteString(p.What)
	if p.Count > 1 {
		fmt.Fprintf(&b, " (%d lines)", p.Count)
	}
	if p.Remedy != "" {
		b.WriteString("; " + p.Remedy)
	}
	return b.String()
}

// Remedies that stand in several places.
const (
	remedyLater = "not in this build: the rule is out, all others run"
	remedyFix   = "correct the line or take it out"
)

// Tally counts problems for one log line: lines by severity, and rules that are
// out.
type Tally struct {
	Mistakes, Unsupported, Notices int
	// RulesOut is the number of rules that are named as not running.
	RulesOut int
}

// Count tallies problems.
func Count(problems []Problem) Tally {
	var t Tally
	for _, p := range problems {
		switch p.Severity {
		case Mistake:
			t.Mistakes += p.Count
		case Unsupported:
			t.Unsupported += p.Count
		default:
			t.Notices += p.Count
		}
		if p.Rule != "" && p.Severity != Notice {
			t.RulesOut++
		}
	}
	return t
}
