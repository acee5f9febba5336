package policy

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"sluice/internal/envelope"
	"sluice/internal/verdict"
)

// Problem is one mistake in a set of policies.
type Problem struct {
	// Entry is the index of the entry.
	Entry int
	// Path leads to the value: a field's key, then perhaps an index (int) of a list or
	// the key (string) of a map; "match" is no field but may stand there.
	Path []any
	// Message says what is wrong, Remedy how to mend it.
	Message, Remedy string
	// Thresholds: tag_score, mark_score and kill_score are out of order, which may
	// follow from another mistake.
	Thresholds bool
	// Advice: a person should look, but what is written is in force: thresholds that
	// are out of order only against what the entry inherits. A customer who sets
	// kill_score alone means it, and must not stop everybody's policies.
	Advice bool
}

// pathMatch stands in Problem.Path for an entry's match.
const pathMatch = "match"

// Bounds of values.
const (
	maxText   = 200    // bytes of a subject tag
	maxDays   = 36_500 // a hundred years
	maxNumber = 1_000_000_000
	maxItems  = 100_000 // of one list or map
	maxGlob   = 256
)

// Check makes a Snapshot as NewSnapshot does and finds every mistake: what
// NewSnapshot refuses, values out of bounds, thresholds out of order in an entry
// (advice: along its look-up chain), and actions that the build can't carry out.
// built has the names of the scanners and capabilities that are there. The
// Snapshot is nil if any problem is more than advice; they are in the order of
// the entries. An entry whose match is wrong is checked for all that doesn't depend on
// whose it is.
func Check(entries []Entry, opts SnapshotOptions, built map[string]bool) (*Snapshot, []Problem) {
	s, problems := assemble(entries, opts)
	for i := range entries {
		for f, v := range entries[i].Policy.All() {
			add := func(message, remedy string, at ...any) {
				problems = append(problems, Problem{Entry: i, Path: append([]any{f.Key}, at...), Message: message, Remedy: remedy})
			}
			checkValue(f, v, add)
			checkBuilt(v, built, add)
		}
		problems = append(problems, s.checkThresholds(i, &entries[i])...)
	}
	slices.SortStableFunc(problems, func(a, b Problem) int { return a.Entry - b.Entry })
	if slices.ContainsFunc(problems, func(p Problem) bool { return !p.Advice }) {
		return nil, problems
	}
	return s, problems
}

// NewSnapshot makes a Snapshot of the entries, which it keeps: the caller doesn't
// change them any more. A bad match, two entries with the same direction and
// match, and a like that names no plan of its direction are errors, all of them
// joined. Check finds more.
func NewSnapshot(entries []Entry, opts SnapshotOptions) (*Snapshot, error) {
	s, problems := assemble(entries, opts)
	var errs []error
	for _, p := range problems {
		e := &entries[p.Entry]
		errs = append(errs, fmt.Errorf("%s policy %q: %s", e.Direction, e.Match, p.Message))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return s, nil
}

// assemble makes a Snapshot of what is right among the entries.
func assemble(entries []Entry, opts SnapshotOptions) (*Snapshot, []Problem) {
	s := &Snapshot{Generation: opts.Generation, delimiters: opts.Delimiters}
	var problems []Problem
	outbound := 0
	for i := range entries {
		if entries[i].Direction == envelope.Outbound {
			outbound++
		}
	}
	s.in.init(envelope.Inbound, len(entries)-outbound)
	s.out.init(envelope.Outbound, outbound)
	for i := range entries {
		e := &entries[i]
		match, err := ParseMatch(e.Match)
		if err != nil {
			problems = append(problems, Problem{Entry: i, Path: []any{pathMatch}, Message: err.Error()})
			continue
		}
		if !s.of(e.Direction).add(match, e.Policy) {
			problems = append(problems, Problem{Entry: i, Path: []any{pathMatch},
				Message: fmt.Sprintf("there are two %s policies for %s", e.Direction, match), Remedy: "make one of the two"})
		}
	}
	for i := range entries {
		e := &entries[i]
		name := e.Policy.like()
		if name == "" {
			continue
		}
		add := func(message, remedy string) {
			problems = append(problems, Problem{Entry: i, Path: []any{keyLike}, Message: message, Remedy: remedy})
		}
		switch t := s.of(e.Direction); {
		case strings.HasPrefix(e.Match, "="):
			add("a plan can't be like another one", "write its fields out")
		case !t.like(e.Match, name):
			add(fmt.Sprintf("there is no plan %q for %s mail", name, e.Direction), t.planRemedy(e.Direction, name))
		}
	}
	return s, problems
}

// planRemedy says which plans there are.
func (t *set) planRemedy(d envelope.Direction, name string) string {
	var plans []string
	for i := range t.entries {
		if m := t.entries[i].match; m[0] == '=' {
			plans = append(plans, m[1:])
		}
	}
	slices.Sort(plans)
	if len(plans) == 0 {
		s := `write the plan as a policy with match: "=` + name + `"`
		if d == envelope.Outbound {
			s += " and direction: outbound"
		}
		return s
	}
	more := ""
	if len(plans) > 10 {
		plans, more = plans[:10], " …"
	}
	return "there are: " + strings.Join(plans, ", ") + more
}

// checkThresholds finds tag_score, mark_score and kill_score out of order, as
// they are in force where this entry is the most specific one.
func (s *Snapshot) checkThresholds(i int, en *Entry) []Problem {
	match, err := ParseMatch(en.Match)
	if err != nil {
		match = "=" // alone, as a plan
	}
	var e *Effective
	own := func(key string) bool { _, ok := en.Policy.Get(key); return ok }
	switch {
	case match[0] == '=':
		e = Defaults()
		e.lay(&en.Policy, match)
	case !own(keyTag) && !own(keyMark) && !own(keyKill) && en.Policy.like() == "":
		return nil // told where it is set
	default: // laid here, not looked up: a second entry with this match is judged as well
		t := s.of(en.Direction)
		e = t.build(s.keysOf(match)[1:])
		if n, ok := t.byMatch["="+en.Policy.like()]; ok {
			e.lay(&t.entries[n].policy, match+" (like "+t.entries[n].match+")")
		}
		e.lay(&en.Policy, match)
	}
	type pair struct {
		low, high           string
		lowScore, highScore verdict.Score
	}
	pairs := []pair{{keyTag, keyMark, e.TagScore, e.MarkScore}, {keyMark, keyKill, e.MarkScore, e.KillScore}}
	if own(keyTag) && !own(keyMark) && own(keyKill) && e.TagScore > e.KillScore {
		pairs = []pair{{keyTag, keyKill, e.TagScore, e.KillScore}} // no mark_score would do
	}
	var problems []Problem
	for _, pair := range pairs {
		if pair.lowScore <= pair.highScore {
			continue
		}
		at, other, relation := pair.low, pair.high, "above"
		atScore, otherScore := pair.lowScore, pair.highScore
		if !own(at) && own(other) {
			at, other, relation, atScore, otherScore = other, at, "below", otherScore, atScore
		}
		planned := strings.Contains(e.Origin(pair.low)+e.Origin(pair.high), "(like ")
		if match[0] == '=' && !(own(at) && own(other)) || !own(at) && !planned {
			continue // told where it is used, or where it is set
		}
		from := ""
		if !own(other) {
			from = " (" + e.Origin(other) + ")"
		}
		remedy := "keep tag_score ≤ mark_score ≤ kill_score"
		if !own(other) {
			remedy += "; set " + other + " here as well"
		}
		path := []any{at}
		if !own(at) {
			path = []any{keyLike}
		}
		problems = append(problems, Problem{Entry: i, Path: path, Thresholds: true, Advice: !own(at) || !own(other),
			Message: fmt.Sprintf("thresholds out of order: %s %s is %s %s %s%s", at, atScore, relation, other, otherScore, from),
			Remedy:  remedy})
	}
	return problems
}

// keysOf returns the keys of the chain that begins with a match that is no plan,
// itself the first.
func (s *Snapshot) keysOf(match string) []string {
	switch {
	case match == Everyone:
		return []string{match}
	case strings.HasPrefix(match, "@."):
		return envelope.Keys(envelope.Address{Domain: match[2:]}, s.delimiters)[1:]
	case match[0] == '@':
		return envelope.Keys(envelope.Address{Domain: match[1:]}, s.delimiters)
	}
	return envelope.Keys(envelope.Parse(match), s.delimiters)
}

// checkBuilt finds actions that are written down and can't be carried out.
func checkBuilt(v any, built map[string]bool, add func(message, remedy string, at ...any)) {
	a, ok := v.(verdict.Action)
	switch {
	case !ok:
	case a == verdict.Quarantine && !built[NeedsStore]:
		add("the action quarantine needs a store, which this build has not", "write reject, discard, tempfail, tag or accept")
	case a == verdict.Redirect && !built[NeedsRedirect]:
		add("the action redirect needs a store, which this build has not", "write reject, discard, tempfail, tag or accept")
	}
}

// checkValue finds values out of bounds.
func checkValue(f *Field, v any, add func(message, remedy string, at ...any)) {
	switch v := v.(type) {
	case verdict.Score:
		if v > verdict.MaxScore || v < -verdict.MaxScore {
			add("the score is out of bounds", "")
		}
	case int:
		limit := maxNumber
		if f.Key == "quarantine_days" {
			limit = maxDays
		}
		if v < 0 || v > limit {
			add(fmt.Sprintf("%d is out of bounds", v), fmt.Sprintf("write 0 to %d", limit))
		}
	case int64:
		if v < 0 {
			add("a size can't be negative", "")
		}
	case string:
		if message, remedy := checkText(f.Type, v); message != "" {
			add(message, remedy)
		}
	case []verdict.Class:
		for i, c := range v {
			switch {
			case c == verdict.ClassClean:
				add("clean mail isn't kept", "one of virus, banned, ambiguous, spam, failed, unchecked, marked", i)
			case slices.Contains(v[:i], c):
				add(c.String()+" stands twice", "remove one of the two", i)
			}
		}
	case []string:
		checkStrings(f.Type, v, add)
	case Map[SenderScore]:
		tooMany(len(v), add)
		for k, s := range v {
			switch {
			case s == nil:
			case f.Key == keyAllow && s.Score > 0:
				add(fmt.Sprintf("an allow entry of %s would make the mail worse", s.Score), "write a number of 0 or less, or move it to deny_senders", k)
			case f.Key == keyDeny && s.Score < 0:
				add(fmt.Sprintf("a deny entry of %s would make the mail better", s.Score), "write a number of 0 or more, or move it to allow_senders", k)
			}
		}
	case Map[verdict.Score]:
		tooMany(len(v), add)
		for k := range v {
			if !validSymbol(k) {
				add(fmt.Sprintf("%q is no symbol", k), "write letters, digits and '_'", k)
			}
		}
	}
}

func tooMany(n int, add func(message, remedy string, at ...any)) {
	if n > maxItems {
		add(fmt.Sprintf("%d entries are too many", n), fmt.Sprintf("at most %d", maxItems))
	}
}

func validSymbol(s string) bool {
	return s != "" && len(s) <= 128 && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_')
	})
}

func checkText(t Type, s string) (message, remedy string) {
	control := func(r rune) bool { return !unicode.IsPrint(r) && r != ' ' }
	switch t {
	case TypeText:
		switch {
		case len(s) > maxText:
			return fmt.Sprintf("the text is longer than %d bytes", maxText), ""
		case !utf8.ValidString(s) || strings.ContainsFunc(s, control):
			return "the text has line ends or control characters", "write one line"
		}
	case TypeASCII:
		switch {
		case len(s) > MaxRejectText:
			return fmt.Sprintf("the text is longer than %d bytes", MaxRejectText), ""
		case strings.ContainsFunc(s, func(r rune) bool { return r < ' ' }):
			return "the text has line ends or control characters", "write one line"
		case strings.ContainsFunc(s, func(r rune) bool { return r > '~' }):
			return "the text is not plain ASCII, which SMTP replies have to be", "write it without accents, umlauts and other signs (ae for ä)"
		}
	case TypeAddress:
		if s == "" {
			return "", ""
		}
		if _, err := envelope.ParseStrict(s); err != nil {
			return fmt.Sprintf("%q is no mail address", s), "write it as user@example.org"
		}
	case TypePlan:
		if err := CheckPlan(s); err != nil {
			return err.Error(), ""
		}
	case TypeScope:
		if s != "global" && s != "domain" && s != "user" {
			return fmt.Sprintf("unknown scope %q", s), "one of global, domain, user"
		}
	}
	return "", ""
}

// nameSets are the sets that banned_names may name.
var nameSets = [...]string{"@executables", "@scripts", "@disk_images", "@shortcuts", "@macros", "@encrypted_archives"}

func checkStrings(t Type, list []string, add func(message, remedy string, at ...any)) {
	tooMany(len(list), add)
	for i, s := range list {
		switch {
		case t == TypeMedia:
			main, sub, ok := strings.Cut(s, "/")
			if !ok || main == "" || sub == "" || len(s) > maxGlob || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == ';' }) {
				add(fmt.Sprintf("%q is no MIME type", s), "write it as application/x-msdownload", i)
			}
		case strings.HasPrefix(strings.TrimPrefix(s, "!"), "@"):
			if !slices.Contains(nameSets[:], strings.TrimPrefix(s, "!")) {
				add(fmt.Sprintf("unknown set %q", s), "one of "+strings.Join(nameSets[:], ", "), i)
			}
		default:
			g := strings.TrimPrefix(s, "!")
			if _, err := path.Match(g, ""); err != nil || g == "" || len(g) > maxGlob {
				add(fmt.Sprintf("bad glob %q", s), `write it as *.exe or invoice-*.[jv]*; a bracket needs its other half, and \ quotes a sign`, i)
			}
		}
	}
}

// ParseSender reads a key of allow_senders or deny_senders and returns the form
// in which it is looked up: what ParseMatch reads but plans, and a bare domain
// (example.org), which means that domain alone.
func ParseSender(s string) (string, error) {
	if !strings.Contains(s, "@") && envelope.ValidDomain(s) {
		s = "@" + s
	}
	if m, err := ParseMatch(s); err == nil && m[0] != '=' {
		return m, nil
	}
	return "", fmt.Errorf("%q is no sender: write user@example.org, @example.org (that domain), @.example.org (it and all below) or @. (everyone)", s)
}
