package policy

import (
	"slices"
	"time"

	"sluice/internal/verdict"
)

// Type is the type of a field's value.
type Type uint8

// The types, each with the Go type of its values.
const (
	TypeBool     Type = iota // bool
	TypeScore                // verdict.Score
	TypeAction               // verdict.Action
	TypeDuration             // time.Duration
	TypeClasses              // []verdict.Class
	TypeNumber               // int
	TypeSize                 // int64, bytes
	TypeText                 // string, one line of printable UTF-8
	TypeASCII                // string, one line of printable ASCII
	TypeAddress              // string, an address, "" = none
	TypePlan                 // string, the name of a plan
	TypeScope                // string, one of global, domain, user
	TypeGlobs                // []string, globs on file names
	TypeMedia                // []string, MIME types
	TypeSenders              // Map[SenderScore]
	TypeSymbols              // Map[verdict.Score]
)

var typeWords = [...]string{"true or false", "a number", "an action", "a duration", "a list of classes", "a whole number",
	"a size", "text", "text in ASCII", "an address", "the name of a plan", "global, domain or user", "a list of globs",
	"a list of MIME types", "a map of senders", "a map of symbols"}

// String says in words what a value of the type is.
func (t Type) String() string { return typeWords[t] }

// What a field can need to have an effect, beside those that always have one: the
// name of a scanner, or one of these.
const (
	NeedsStore    = "store"
	NeedsRedirect = "redirect"
)

// Field is one row of the table of fields. Read-only.
type Field struct {
	// Key is the field's name in files and the column's in databases.
	Key  string
	Type Type
	// Default is the built-in value, of the type's Go type; nil is unset.
	Default any
	// Doc says in one line what the field does.
	Doc string
	// Needs names the scanner or the capability without which the field has no
	// effect; "" if it always has one.
	Needs string

	index int
	// at returns a pointer to the field's place; nil for fields that no Effective
	// has (like).
	at func(*Effective) any
}

// fieldCount is the number of fields; a test holds the table against it.
const fieldCount = 32

// Keys that the code names.
const (
	keyLike        = "like"
	keyScanSpam    = "scan_spam"
	keyTag         = "tag_score"
	keyMark        = "mark_score"
	keyKill        = "kill_score"
	keyFailedFinal = "failed_final_action"
	keyMaxSize     = "max_size"
	keyAllow       = "allow_senders"
	keyDeny        = "deny_senders"
	keyDMARC       = "dmarc_action"
)

func actionKey(c verdict.Class) string { return c.String() + "_action" }

func actionField(c verdict.Class, a verdict.Action, doc string) Field {
	return Field{Key: actionKey(c), Type: TypeAction, Default: a, Doc: doc,
		at: func(e *Effective) any { return &e.Actions[c] }}
}

// table is the one place that names all fields.
var table = indexed([fieldCount]Field{
	{Key: keyLike, Type: TypePlan, Doc: "a plan (a policy whose match is =NAME) that is asked directly after this policy"},
	{Key: "scan_virus", Type: TypeBool, Default: true, Doc: "whether what clamav finds counts",
		at: func(e *Effective) any { return &e.ScanVirus }},
	{Key: keyScanSpam, Type: TypeBool, Default: true, Doc: "whether what rules, bayes, dnsbl and sender find counts, and the lists of senders",
		at: func(e *Effective) any { return &e.ScanSpam }},
	{Key: "scan_attachments", Type: TypeBool, Default: true, Doc: "whether what attachment finds counts", Needs: "attachment",
		at: func(e *Effective) any { return &e.ScanAttachments }},
	{Key: keyTag, Type: TypeScore, Default: -999 * verdict.Point, Doc: "from this score on the X-Spam header fields are added",
		at: func(e *Effective) any { return &e.TagScore }},
	{Key: keyMark, Type: TypeScore, Default: 5 * verdict.Point, Doc: "from this score on the mail is marked",
		at: func(e *Effective) any { return &e.MarkScore }},
	{Key: keyKill, Type: TypeScore, Default: 15 * verdict.Point, Doc: "from this score on spam_action holds",
		at: func(e *Effective) any { return &e.KillScore }},
	actionField(verdict.ClassVirus, verdict.Reject, "what is done to malware"),
	actionField(verdict.ClassBanned, verdict.Reject, "what is done to banned content and mail larger than max_size"),
	actionField(verdict.ClassAmbiguous, verdict.Reject, "what is done to mail that mail programs would read differently"),
	actionField(verdict.ClassSpam, verdict.Reject, "what is done to mail of kill_score or more"),
	actionField(verdict.ClassFailed, verdict.Tempfail, "what is done when a required scanner gave no definite answer"),
	actionField(verdict.ClassUnchecked, verdict.Tag, "what is done to mail with content that could not be looked at"),
	actionField(verdict.ClassMarked, verdict.Tag, "what is done to mail of mark_score or more"),
	{Key: "failed_after", Type: TypeDuration, Default: 4 * time.Hour, Doc: "mail that has been failing for longer gets failed_final_action", Needs: NeedsStore,
		at: func(e *Effective) any { return &e.FailedAfter }},
	{Key: keyFailedFinal, Type: TypeAction, Default: verdict.Quarantine, Doc: "what is done to failing mail after failed_after", Needs: NeedsStore,
		at: func(e *Effective) any { return &e.FailedFinalAction }},
	{Key: "quarantine", Type: TypeClasses, Default: []verdict.Class{verdict.ClassVirus, verdict.ClassBanned, verdict.ClassAmbiguous, verdict.ClassSpam},
		Doc: "classes of which a copy is kept beside reject, discard and redirect", Needs: NeedsStore,
		at: func(e *Effective) any { return &e.Quarantine }},
	{Key: "quarantine_days", Type: TypeNumber, Default: 30, Doc: "days for which a copy is kept", Needs: NeedsStore,
		at: func(e *Effective) any { return &e.QuarantineDays }},
	{Key: "subject_tag", Type: TypeText, Default: "", Doc: "put before the Subject of marked mail and spam that is tagged",
		at: func(e *Effective) any { return &e.SubjectTag }},
	{Key: "unchecked_subject_tag", Type: TypeText, Default: "", Doc: "put before the Subject of tagged mail of the other classes",
		at: func(e *Effective) any { return &e.UncheckedSubjectTag }},
	{Key: "reject_text", Type: TypeASCII, Default: "", Doc: "put into 5xx replies",
		at: func(e *Effective) any { return &e.RejectText }},
	{Key: "redirect_to", Type: TypeAddress, Default: "", Doc: "where redirect delivers to; without one redirect is quarantine", Needs: NeedsRedirect,
		at: func(e *Effective) any { return &e.RedirectTo }},
	{Key: keyAllow, Type: TypeSenders, Doc: "scores (0 or less) added for senders and authors that are authenticated",
		at: func(e *Effective) any { return &e.AllowSenders }},
	{Key: keyDeny, Type: TypeSenders, Doc: "scores (0 or more) added for senders and authors",
		at: func(e *Effective) any { return &e.DenySenders }},
	{Key: "banned_names", Type: TypeGlobs, Default: []string{"@executables", "@scripts", "@disk_images", "@shortcuts"},
		Doc: "globs on attachment names; !glob excepts, @set names a set", Needs: "attachment",
		at: func(e *Effective) any { return &e.BannedNames }},
	{Key: "banned_types", Type: TypeMedia, Default: []string{"application/x-msdownload", "application/x-dosexec",
		"application/vnd.microsoft.portable-executable", "application/x-executable", "application/x-mach-binary"},
		Doc: "MIME types as sniffed from content", Needs: "attachment",
		at: func(e *Effective) any { return &e.BannedTypes }},
	{Key: keyMaxSize, Type: TypeSize, Default: int64(0), Doc: "larger mail is banned; 0 = no limit",
		at: func(e *Effective) any { return &e.MaxSize }},
	{Key: "symbol_scores", Type: TypeSymbols, Doc: "scores of symbols in place of their own; changes the sum only",
		at: func(e *Effective) any { return &e.SymbolScores }},
	{Key: "bayes_scope", Type: TypeScope, Default: "global", Doc: "whose learned tokens count", Needs: "bayes",
		at: func(e *Effective) any { return &e.BayesScope }},
	{Key: keyDMARC, Type: TypeAction, Doc: "what is done where the author's domain says reject or quarantine and DMARC fails; unset: score only", Needs: "sender",
		at: func(e *Effective) any { return &e.DMARCAction }},
	{Key: "rate_limit", Type: TypeNumber, Default: 0, Doc: "outbound: recipients an hour for each login; 0 = no limit", Needs: NeedsStore,
		at: func(e *Effective) any { return &e.RateLimit }},
	{Key: "observe", Type: TypeBool, Default: false, Doc: "decide and record, but change nothing and refuse nothing",
		at: func(e *Effective) any { return &e.Observe }},
})

func indexed(t [fieldCount]Field) *[fieldCount]Field {
	for i := range t {
		t[i].index = i
	}
	return &t
}

// byKey finds a field by its key; filled once, never changed.
var byKey = func() map[string]*Field {
	m := make(map[string]*Field, fieldCount)
	for i := range table {
		m[table[i].Key] = &table[i]
	}
	return m
}()

// Fields returns all fields in the order in which they are shown. The caller owns
// the slice.
func Fields() []Field { return slices.Clone(table[:]) }

// Lookup returns the field with that key.
func Lookup(key string) (*Field, bool) {
	f, ok := byKey[key]
	return f, ok
}

// NoEffect says why the field has no effect in a build that has only the given
// scanners and capabilities; "" if it has one.
func (f *Field) NoEffect(built map[string]bool) string {
	if f.Needs == "" || built[f.Needs] {
		return ""
	}
	return "no effect in this build (needs " + f.Needs + ")"
}

// Defaults returns the built-in defaults as a policy that holds for everyone.
// The caller owns it.
func Defaults() *Effective {
	e := &Effective{}
	for i := range table {
		if f := &table[i]; f.at != nil && f.Default != nil {
			f.assign(e, f.Default)
		}
	}
	return e
}

// assign puts a value, which must be of the field's Go type, into an Effective.
// Maps are laid over what is there.
func (f *Field) assign(e *Effective, v any) {
	switch at := f.at(e).(type) {
	case *bool:
		*at = v.(bool)
	case *verdict.Score:
		*at = v.(verdict.Score)
	case *verdict.Action:
		*at = v.(verdict.Action)
	case **verdict.Action:
		a := v.(verdict.Action)
		*at = &a
	case *time.Duration:
		*at = v.(time.Duration)
	case *int:
		*at = v.(int)
	case *int64:
		*at = v.(int64)
	case *string:
		*at = v.(string)
	case *[]string:
		*at = v.([]string)
	case *[]verdict.Class:
		*at = v.([]verdict.Class)
	case *Layers[SenderScore]:
		*at = append(Layers[SenderScore]{v.(Map[SenderScore])}, *at...)
	case *Layers[verdict.Score]:
		*at = append(Layers[verdict.Score]{v.(Map[verdict.Score])}, *at...)
	}
}

// fits reports whether v is of the type's Go type.
func (t Type) fits(v any) bool {
	ok := false
	switch t {
	case TypeBool:
		_, ok = v.(bool)
	case TypeScore:
		_, ok = v.(verdict.Score)
	case TypeAction:
		_, ok = v.(verdict.Action)
	case TypeDuration:
		_, ok = v.(time.Duration)
	case TypeClasses:
		_, ok = v.([]verdict.Class)
	case TypeNumber:
		_, ok = v.(int)
	case TypeSize:
		_, ok = v.(int64)
	case TypeText, TypeASCII, TypeAddress, TypePlan, TypeScope:
		_, ok = v.(string)
	case TypeGlobs, TypeMedia:
		_, ok = v.([]string)
	case TypeSenders:
		_, ok = v.(Map[SenderScore])
	case TypeSymbols:
		_, ok = v.(Map[verdict.Score])
	}
	return ok
}

// merges reports whether values of the type are laid over each other.
func (t Type) merges() bool { return t == TypeSenders || t == TypeSymbols }
