package policy_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/internal/envelope"
	"sluice/internal/verdict"
	"sluice/policy"
)

// Findings that the tests are made of.
var (
	virus     = verdict.Finding{Symbol: "CLAMAV_VIRUS", Kind: verdict.KindVirus, Scanner: "clamav", Detail: "Eicar-Test-Signature"}
	banned    = verdict.Finding{Symbol: "BANNED_NAME", Kind: verdict.KindBanned, Scanner: "attachment", Part: "2", Description: "name is banned", Detail: "tool.exe"}
	ambiguous = verdict.Finding{Symbol: "BOUNDARY_TWICE", Kind: verdict.KindAmbiguous, Scanner: verdict.FinderReader, Description: "two boundaries"}
	failed    = verdict.Finding{Symbol: "CLAMAV_FAILED", Kind: verdict.KindFailed, Scanner: "clamav", Detail: "connection refused"}
	unchecked = verdict.Finding{Symbol: "ENCRYPTED_ARCHIVE", Kind: verdict.KindUnchecked, Scanner: "clamav", Part: "2.1", Description: "encrypted"}
	gtube     = spam("GTUBE", 1000)
	spfPass   = verdict.Finding{Symbol: "SPF_PASS", Kind: verdict.KindAuth, Scanner: "sender"}
	dkimPass  = verdict.Finding{Symbol: "DKIM_VALID_AU", Kind: verdict.KindAuth, Scanner: "sender"}
	dmarcFail = verdict.Finding{Symbol: "DMARC_REJECT", Kind: verdict.KindAuth, Scanner: "sender"}
)

func spam(symbol string, points float64) verdict.Finding {
	return verdict.Finding{Symbol: symbol, Kind: verdict.KindSpam, Score: verdict.Points(points), Scanner: "rules"}
}

func by(f verdict.Finding, scanner string) verdict.Finding { f.Scanner = scanner; return f }

// newCase is inbound mail from lee@example.org with these findings.
func newCase(fs ...verdict.Finding) *policy.Case {
	return &policy.Case{
		Verdict:  &verdict.Verdict{Findings: fs, Size: 1000},
		Envelope: &envelope.Envelope{Sender: envelope.Sender{Address: addr("lee@example.org")}},
		Author:   addr("lee@example.org"),
		ID:       "0192",
	}
}

func rcpt(s string) envelope.Recipient { return envelope.Recipient{Address: addr(s)} }

func decide(c *policy.Case, p *policy.Effective) verdict.Decision {
	return policy.Decide(c, rcpt("kim@example.net"), p)
}

// TestDecide has every row of DESIGN §3's classes and §4's fields and actions.
// want is "class action [all classes]".
func TestDecide(t *testing.T) {
	for _, tt := range []struct {
		name   string
		fields string // separated by ';'
		fs     []verdict.Finding
		want   string
	}{
		{"nothing found", "", nil, "clean accept []"},
		{"info and auth change nothing", "", []verdict.Finding{spfPass, {Symbol: "X", Kind: verdict.KindInfo, Scanner: "dnsbl"}}, "clean accept []"},

		// Each class with its default action.
		{"virus", "", []verdict.Finding{virus}, "virus reject [virus]"},
		{"banned", "", []verdict.Finding{banned}, "banned reject [banned]"},
		{"ambiguous", "", []verdict.Finding{ambiguous}, "ambiguous reject [ambiguous]"},
		{"spam", "", []verdict.Finding{gtube}, "spam reject [spam marked]"},
		{"failed", "", []verdict.Finding{failed}, "failed tempfail [failed]"},
		{"unchecked", "", []verdict.Finding{unchecked}, "unchecked tag [unchecked]"},
		{"marked", "", []verdict.Finding{spam("A", 5)}, "marked tag [marked]"},

		// Each class with an action of one's own.
		{"virus_action", "virus_action: discard", []verdict.Finding{virus}, "virus discard [virus]"},
		{"banned_action", "banned_action: accept", []verdict.Finding{banned}, "banned accept [banned]"},
		{"ambiguous_action", "ambiguous_action: tag", []verdict.Finding{ambiguous}, "ambiguous tag [ambiguous]"},
		{"spam_action", "spam_action: quarantine", []verdict.Finding{gtube}, "spam quarantine [spam marked]"},
		{"failed_action", "failed_action: tag", []verdict.Finding{failed}, "failed tag [failed]"},
		{"unchecked_action", "unchecked_action: reject", []verdict.Finding{unchecked}, "unchecked reject [unchecked]"},
		{"marked_action", "marked_action: redirect; redirect_to: a@example.org", []verdict.Finding{spam("A", 5)}, "marked redirect [marked]"},
		{"redirect without a target is quarantine", "marked_action: redirect", []verdict.Finding{spam("A", 5)}, "marked quarantine [marked]"},
		{"redirect that becomes quarantine is ranked as one", "spam_action: redirect; marked_action: tempfail", []verdict.Finding{gtube}, "spam quarantine [spam marked]"},

		// Thresholds.
		{"below mark_score", "", []verdict.Finding{spam("A", 4.9999)}, "clean accept []"},
		{"at mark_score", "mark_score: 4.9999", []verdict.Finding{spam("A", 4.9999)}, "marked tag [marked]"},
		{"below kill_score", "", []verdict.Finding{spam("A", 14.9999)}, "marked tag [marked]"},
		{"at kill_score", "", []verdict.Finding{spam("A", 7.5), spam("B", 7.5)}, "spam reject [spam marked]"},
		{"negative scores count", "", []verdict.Finding{spam("A", 6), spam("B", -2)}, "clean accept []"},
		{"auth findings have scores too", "", []verdict.Finding{spam("A", 4), {Symbol: "SPF_FAIL", Kind: verdict.KindAuth, Scanner: "sender", Score: verdict.Point}}, "marked tag [marked]"},
		{"scores of other kinds don't count", "", []verdict.Finding{{Symbol: "X", Kind: verdict.KindInfo, Score: 100 * verdict.Point}}, "clean accept []"},

		// Of several classes the most severe action counts, ties by class.
		{"virus and spam", "", []verdict.Finding{gtube, virus}, "virus reject [virus spam marked]"},
		{"a lenient virus does not hide spam", "virus_action: tag", []verdict.Finding{gtube, virus}, "spam reject [virus spam marked]"},
		{"a lenient spam does not hide marked", "spam_action: accept", []verdict.Finding{gtube}, "marked tag [spam marked]"},
		{"a virus found though another scanner failed", "", []verdict.Finding{failed, virus}, "virus reject [virus failed]"},
		{"failed though the virus is accepted", "virus_action: accept", []verdict.Finding{failed, virus}, "failed tempfail [virus failed]"},
		{"tie by class", "virus_action: tag; banned_action: tag", []verdict.Finding{unchecked, banned, virus}, "virus tag [virus banned unchecked]"},
		{"reject before discard", "virus_action: discard", []verdict.Finding{virus, banned}, "banned reject [virus banned]"},
		{"discard before quarantine", "virus_action: quarantine; banned_action: discard", []verdict.Finding{virus, banned}, "banned discard [virus banned]"},
		{"quarantine before tempfail", "unchecked_action: quarantine", []verdict.Finding{failed, unchecked}, "unchecked quarantine [failed unchecked]"},
		{"tempfail before redirect", "unchecked_action: redirect; redirect_to: a@example.org", []verdict.Finding{failed, unchecked}, "failed tempfail [failed unchecked]"},
		{"redirect before tag", "unchecked_action: redirect; redirect_to: a@example.org", []verdict.Finding{spam("A", 6), unchecked}, "unchecked redirect [unchecked marked]"},
		{"tag before accept", "unchecked_action: accept", []verdict.Finding{spam("A", 6), unchecked}, "marked tag [unchecked marked]"},
		{"every class", "", []verdict.Finding{virus, banned, ambiguous, gtube, failed, unchecked}, "virus reject [virus banned ambiguous spam failed unchecked marked]"},

		// What counts only if the field that it belongs to is on.
		{"scan_virus off: virus", "scan_virus: false", []verdict.Finding{virus}, "clean accept []"},
		{"scan_virus off: failed", "scan_virus: false", []verdict.Finding{failed}, "clean accept []"},
		{"scan_virus off: unchecked", "scan_virus: false", []verdict.Finding{unchecked}, "clean accept []"},
		{"scan_virus off, others on", "scan_virus: false", []verdict.Finding{virus, banned, by(failed, "rules")}, "banned reject [banned failed]"},
		{"scan_attachments off", "scan_attachments: false", []verdict.Finding{banned, by(unchecked, "attachment"), by(failed, "attachment")}, "clean accept []"},
		{"scan_spam off: rules", "scan_spam: false", []verdict.Finding{gtube}, "clean accept []"},
		{"scan_spam off: failed rules, bayes, dnsbl, sender", "scan_spam: false", []verdict.Finding{by(failed, "rules"), by(failed, "bayes"), by(failed, "dnsbl"), by(failed, "sender")}, "clean accept []"},
		{"scan_spam off: mark_score of nothing", "scan_spam: false; mark_score: -5", nil, "clean accept []"},
		{"all off: the reader counts", "scan_virus: false; scan_attachments: false; scan_spam: false", []verdict.Finding{by(unchecked, verdict.FinderReader), ambiguous}, "ambiguous reject [ambiguous unchecked]"},
		{"all off: the gateway counts", "scan_virus: false; scan_attachments: false; scan_spam: false", []verdict.Finding{by(unchecked, verdict.FinderGateway)}, "unchecked tag [unchecked]"},
		{"all off: an unknown scanner counts", "scan_virus: false; scan_attachments: false; scan_spam: false", []verdict.Finding{by(virus, "other")}, "virus reject [virus]"},

		// Size.
		{"max_size reached", "max_size: 1000", nil, "clean accept []"},
		{"larger than max_size", "max_size: 999", nil, "banned reject [banned]"},
		{"max_size counts with everything off", "max_size: 999; scan_attachments: false; scan_virus: false; scan_spam: false", nil, "banned reject [banned]"},
		{"max_size 0 is no limit", "max_size: 0", nil, "clean accept []"},

		// Scores of symbols.
		{"symbol_scores changes the sum", "symbol_scores: {GTUBE: 5}", []verdict.Finding{gtube}, "marked tag [marked]"},
		{"symbol_scores adds no symbol", "symbol_scores: {OTHER: 50}", []verdict.Finding{spam("A", 1)}, "clean accept []"},

		// Senders.
		{"deny adds", "deny_senders: {example.org: 5}", nil, "marked tag [marked]"},
		{"deny of the domain and all below", "deny_senders: {\"@.org\": 15}", nil, "spam reject [spam marked]"},
		{"deny of another domain", "deny_senders: {example.com: 50}", nil, "clean accept []"},
		{"final deny is spam whatever the score", "deny_senders: {example.org: {final: true}}", nil, "spam reject [spam]"},
		{"allow counts not without authentication", "allow_senders: {example.org: -1000}", []verdict.Finding{gtube}, "spam reject [spam marked]"},
		{"allow counts with SPF for the sender", "allow_senders: {example.org: -1000}", []verdict.Finding{gtube, spfPass}, "clean accept []"},
		{"allow counts with DKIM for the author", "allow_senders: {example.org: -1000}", []verdict.Finding{gtube, dkimPass}, "clean accept []"},
		{"allow counts unauthenticated if it says so", "allow_senders: {example.org: {score: -1000, unauthenticated: true}}", []verdict.Finding{gtube}, "clean accept []"},
		{"authentication by another than sender", "allow_senders: {example.org: -1000}", []verdict.Finding{gtube, by(spfPass, "rules")}, "spam reject [spam marked]"},
		{"final allow is never spam nor marked", "allow_senders: {example.org: {final: true, unauthenticated: true}}", []verdict.Finding{gtube}, "clean accept []"},
		{"final allow needs authentication", "allow_senders: {example.org: {final: true}}", []verdict.Finding{gtube}, "spam reject [spam marked]"},
		{"final allow leaves other classes", "allow_senders: {example.org: {final: true, unauthenticated: true}}", []verdict.Finding{gtube, virus, unchecked}, "virus reject [virus unchecked]"},
		{"final deny before final allow", "allow_senders: {example.org: {final: true, unauthenticated: true}}; deny_senders: {lee@example.org: {final: true}}", nil, "spam reject [spam]"},
		{"scan_spam off asks no list", "scan_spam: false; deny_senders: {example.org: {final: true}}", nil, "clean accept []"},

		// DMARC.
		{"dmarc_action unset", "", []verdict.Finding{dmarcFail}, "clean accept []"},
		{"dmarc_action", "dmarc_action: discard", []verdict.Finding{dmarcFail}, "spam discard [spam]"},
		{"dmarc_action, DMARC in order", "dmarc_action: discard", []verdict.Finding{spfPass}, "clean accept []"},
		{"dmarc_action beside a more severe spam_action", "dmarc_action: tag", []verdict.Finding{dmarcFail, gtube}, "spam reject [spam marked]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lines := []string{"quarantine_days: 30"}
			for l := range strings.SplitSeq(tt.fields, "; ") {
				lines = append(lines, l)
			}
			d := decide(newCase(tt.fs...), one(t, lines...))
			if got := fmt.Sprintf("%v %v %v", d.Class, d.Action, d.Classes); got != tt.want {
				t.Errorf("%s, want %s (%s)", got, tt.want, d.Reason)
			}
			if d.Recipient != "kim@example.net" || d.Reason == "" || d.Policy == "" {
				t.Errorf("not told in full: %+v", d)
			}
		})
	}
}

// TestSendersTwice: sender and author are both asked; the lower allow and the
// higher deny are added.
func TestSendersTwice(t *testing.T) {
	c := newCase(spam("A", 3), spfPass, dkimPass)
	c.Envelope.Sender.Address, c.Author = addr("bounce+x@mail.example.com"), addr("Lee@Example.org")
	for _, tt := range []struct{ name, field, want string }{
		{"the lower allow", "allow_senders: {\"@.example.com\": -1, lee@example.org: -4}", "-1"},
		{"the lower allow, other way", "allow_senders: {\"@.example.com\": -4, lee@example.org: -1}", "-1"},
		{"the higher deny", "deny_senders: {\"@.example.com\": 1, example.org: 4}", "7"},
		{"the most specific key of each", "deny_senders: {\"@.example.com\": 9, bounce@mail.example.com: 1, \"@.\": 2}", "5"},
		{"both lists", "allow_senders: {example.org: -2}; deny_senders: {\"@.com\": 1}", "2"},
	} {
		d := decide(c, one(t, strings.Split(tt.field, "; ")...))
		if d.Score.String() != tt.want {
			t.Errorf("%s: score %s, want %s", tt.name, d.Score, tt.want)
		}
		var sum verdict.Score
		for _, f := range d.Symbols {
			sum += f.Score
		}
		if sum != d.Score {
			t.Errorf("%s: symbols make %s, score is %s", tt.name, sum, d.Score)
		}
	}
	c.Author = envelope.Address{}
	if d := decide(c, one(t, `deny_senders: {"@.": 4}`)); d.Score != 7*verdict.Point {
		t.Errorf("no author: %s", d.Score)
	}
}

func TestFailedEnds(t *testing.T) {
	p := one(t, "failed_after: 4h", "failed_final_action: tag")
	for _, tt := range []struct {
		name    string
		failing time.Duration
		want    verdict.Action
	}{
		{"unknown never ends", 0, verdict.Tempfail},
		{"not yet", 4 * time.Hour, verdict.Tempfail},
		{"for longer", 4*time.Hour + 1, verdict.Tag},
	} {
		c := newCase(failed)
		c.Failing = tt.failing
		if d := decide(c, p); d.Action != tt.want || d.Class != verdict.ClassFailed {
			t.Errorf("%s: %v %v", tt.name, d.Class, d.Action)
		}
	}
	c := newCase(failed)
	c.Failing = 24 * time.Hour
	if d := decide(c, policy.Defaults()); d.Action != verdict.Quarantine {
		t.Errorf("by default: %v", d.Action)
	}
}

// TestSilenceIsNotClean: the record of a required scanner says that it gave no
// answer, and no finding does.
func TestSilenceIsNotClean(t *testing.T) {
	for _, tt := range []struct {
		name   string
		run    verdict.ScannerRun
		fs     []verdict.Finding
		fields string
		want   verdict.Class
	}{
		{"required, error", verdict.ScannerRun{Name: "clamav", Required: true, Err: "refused"}, nil, "scan_virus: true", verdict.ClassFailed},
		{"required, incomplete without a word", verdict.ScannerRun{Name: "clamav", Required: true}, nil, "scan_virus: true", verdict.ClassFailed},
		{"required, error and failed beside unchecked", verdict.ScannerRun{Name: "clamav", Required: true, Err: "refused"}, []verdict.Finding{unchecked, failed}, "scan_virus: true", verdict.ClassFailed},
		{"a panic, which is unchecked", verdict.ScannerRun{Name: "clamav", Required: true, Err: "panic"}, []verdict.Finding{unchecked}, "scan_virus: true", verdict.ClassUnchecked},
		{"required, incomplete but named", verdict.ScannerRun{Name: "clamav", Required: true}, []verdict.Finding{unchecked}, "scan_virus: true", verdict.ClassUnchecked},
		{"required, complete", verdict.ScannerRun{Name: "clamav", Required: true, Complete: true}, nil, "scan_virus: true", verdict.ClassClean},
		{"not required", verdict.ScannerRun{Name: "clamav", Err: "refused"}, nil, "scan_virus: true", verdict.ClassClean},
		{"not used by this recipient", verdict.ScannerRun{Name: "clamav", Required: true, Err: "refused"}, nil, "scan_virus: false", verdict.ClassClean},
	} {
		c := newCase(tt.fs...)
		c.Verdict.Scanners = []verdict.ScannerRun{tt.run}
		if d := decide(c, one(t, tt.fields)); d.Class != tt.want {
			t.Errorf("%s: %v", tt.name, d.Class)
		}
	}
}

func TestReasons(t *testing.T) {
	s := load(t, "  - {match: \"@example.net\", spam_action: tag, mark_score: 4}\n  - {match: \"=p\", unchecked_action: reject}\n  - {match: \"@.\", like: p, max_size: 500KiB, failed_final_action: reject}\n")
	p := s.Inbound(addr("kim@example.net"))
	big := newCase()
	big.Verdict.Size = 600_000
	late := newCase(failed)
	late.Failing = 5 * time.Hour
	for _, tt := range []struct {
		name, reason, policy string
		c                    *policy.Case
	}{
		{"clean", "score 1.2 < mark_score 4", "@example.net: mark_score", newCase(spam("A", 1.2))},
		{"virus", "virus Eicar-Test-Signature found by clamav", policy.BuiltIn, newCase(virus)},
		{"spam", "score 1002 ≥ kill_score 15 (GTUBE, B)", "@example.net: spam_action", newCase(spam("B", 3), gtube, spam("C", -1))},
		{"marked", "score 4 ≥ mark_score 4 (A)", policy.BuiltIn, newCase(spam("A", 4))},
		{"banned", "banned: BANNED_NAME, name is banned (tool.exe) in part 2", policy.BuiltIn, newCase(banned)},
		{"size", "600000 bytes are more than max_size 512000", policy.BuiltIn, big},
		{"unchecked", "unchecked: ENCRYPTED_ARCHIVE, encrypted in part 2.1", "@. (like =p): unchecked_action", newCase(unchecked)},
		{"failed", "clamav gave no definite answer: connection refused", policy.BuiltIn, newCase(failed)},
		{"failed for long", "clamav gave no definite answer: connection refused, for longer than failed_after", "@.: failed_final_action", late},
	} {
		if d := decide(tt.c, p); d.Reason != tt.reason || d.Policy != tt.policy {
			t.Errorf("%s:\n got  %s | %s\n want %s | %s", tt.name, d.Reason, d.Policy, tt.reason, tt.policy)
		}
	}
	if d := decide(newCase(verdict.Finding{Kind: verdict.KindVirus, Scanner: "clamav", Detail: "a\r\nb" + strings.Repeat("x", 600)}), p); len(d.Reason) > 300 || strings.ContainsAny(d.Reason, "\r\n") {
		t.Errorf("reason is not one bounded line: %q", d.Reason)
	}
}

func TestScoreIsBounded(t *testing.T) {
	c := newCase(by(verdict.Finding{Symbol: "A", Kind: verdict.KindSpam, Score: 1 << 62}, "rules"), by(verdict.Finding{Symbol: "B", Kind: verdict.KindSpam, Score: 1 << 62}, "rules"))
	if d := decide(c, policy.Defaults()); d.Score != verdict.MaxScore || d.Class != verdict.ClassSpam {
		t.Errorf("%v %v", d.Score, d.Class)
	}
}

// randomPolicy sets actions, switches and thresholds at random.
func randomPolicy(rng *rand.Rand) *policy.Effective {
	p := policy.Defaults()
	actions := verdict.AllActions()
	for c := range p.Actions {
		if c != int(verdict.ClassClean) {
			p.Actions[c] = actions[rng.IntN(len(actions))]
		}
	}
	p.ScanVirus, p.ScanSpam, p.ScanAttachments = rng.IntN(4) > 0, rng.IntN(4) > 0, rng.IntN(4) > 0
	p.MarkScore = verdict.Score(rng.IntN(10)) * verdict.Point
	p.KillScore = p.MarkScore + verdict.Score(rng.IntN(10))*verdict.Point
	if rng.IntN(2) == 0 {
		p.RedirectTo = "box@example.org"
	}
	if rng.IntN(3) == 0 {
		p.DMARCAction = &actions[rng.IntN(len(actions))]
	}
	p.SubjectTag = []string{"", "[SPAM] ", "[X] "}[rng.IntN(3)]
	p.UncheckedSubjectTag = []string{"", "[?] "}[rng.IntN(2)]
	p.Observe = rng.IntN(6) == 0
	if rng.IntN(3) == 0 {
		p.Quarantine = nil
	}
	return p
}

func randomFindings(rng *rand.Rand, n int) []verdict.Finding {
	pool := []verdict.Finding{virus, by(virus, "other"), banned, ambiguous, failed, by(failed, "rules"), unchecked, by(unchecked, "reader"), gtube, dmarcFail, spfPass,
		spam("A", 1), spam("B", 2.5), spam("B", 2), spam("C", 5), {Symbol: "INFO", Kind: verdict.KindInfo}, {Symbol: "V2", Kind: verdict.KindVirus, Scanner: "clamav", Detail: "Other"}}
	var fs []verdict.Finding
	for range n {
		fs = append(fs, pool[rng.IntN(len(pool))])
	}
	return fs
}

// TestDecideProperties: the order of findings makes no difference; a further
// finding (of no negative score) never makes the action less severe; no class hides
// a stricter one.
func TestDecideProperties(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 20_000 {
		p := randomPolicy(rng)
		fs := randomFindings(rng, rng.IntN(6))
		d := decide(newCase(fs...), p)

		shuffled := slices.Clone(fs)
		rng.Shuffle(len(fs), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		if o := decide(newCase(shuffled...), p); !reflect.DeepEqual(d, o) {
			t.Fatalf("order of findings:\n%+v\n%+v", d, o)
		}
		more := decide(newCase(append(shuffled, randomFindings(rng, 1)...)...), p)
		if more.Action < d.Action || more.Action == d.Action && more.Class < d.Class {
			t.Fatalf("with one more finding %v %v became %v %v", d.Class, d.Action, more.Class, more.Action)
		}
		for _, c := range d.Classes {
			a := p.Actions[c]
			if c == verdict.ClassSpam && (!p.ScanSpam || d.Score < p.KillScore) {
				a = *p.DMARCAction // spam by DMARC alone
			}
			if a == verdict.Redirect && p.RedirectTo == "" {
				a = verdict.Quarantine
			}
			if a > d.Action {
				t.Fatalf("%v (%v) hid behind %v (%v)", c, a, d.Class, d.Action)
			}
		}
		if (d.Class == verdict.ClassClean) != (len(d.Classes) == 0) || d.Class != verdict.ClassClean && !d.Has(d.Class) {
			t.Fatalf("class %v of %v", d.Class, d.Classes)
		}
	}
}
