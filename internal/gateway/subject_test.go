package gateway

import (
	"mime"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestTagSubject(t *testing.T) {
	spam := []string{"[SPAM] "}
	for _, tc := range []struct {
		name, raw string
		tags      []string
		want      string
	}{
		{"plain", " Offer of the week", spam, "[SPAM] Offer of the week"},
		{"no leading blank", "Offer", spam, "[SPAM] Offer"},
		{"tagged already", " [SPAM] Offer of the week", spam, "[SPAM] Offer of the week"},
		{"tagged in another case", " [spam] Offer", spam, "[SPAM] Offer"},
		{"piled up", " [SPAM] [SPAM][SPAM]  Offer", spam, "[SPAM] Offer"},
		{"behind a reply prefix", " Re: [SPAM] Offer", spam, "[SPAM] Re: Offer"},
		{"before and behind", " [SPAM] Re: AW: [SPAM] Offer", spam, "[SPAM] Re: AW: Offer"},
		{"a reply prefix alone keeps its form", " Re:Offer", spam, "[SPAM] Re:Offer"},
		{"in the middle stays", " About [SPAM] filters", spam, "[SPAM] About [SPAM] filters"},
		{"missing", "", spam, "[SPAM] "},
		{"empty", " ", spam, "[SPAM] "},
		{"folded", " Offer\r\n\tof the week", spam, "[SPAM] Offer\tof the week"},
		{"encoded word stays as it is", " =?utf-8?Q?Gr=C3=BC=C3=9Fe?=", spam, "[SPAM] =?utf-8?Q?Gr=C3=BC=C3=9Fe?="},
		{"tag inside an encoded word", " =?utf-8?Q?[SPAM]_Gr=C3=BC=C3=9Fe?=", spam, "[SPAM] =?utf-8?B?R3LDvMOfZQ==?="},
		{"tag before an encoded word", " [SPAM] =?utf-8?Q?Gr=C3=BC=C3=9Fe?=", spam, "[SPAM] =?utf-8?Q?Gr=C3=BC=C3=9Fe?="},
		{"unknown charset stays", " =?x-none?Q?abc?=", spam, "[SPAM] =?x-none?Q?abc?="},
		{"tag without blank", " Offer", []string{"***SPAM***"}, "***SPAM***Offer"},
		{"tag without blank before an encoded word", " =?utf-8?Q?=C3=BC?=", []string{"***SPAM***"}, "***SPAM*** =?utf-8?Q?=C3=BC?="},
		{"two tags", " Offer", []string{"[SPAM] ", "[UNCHECKED] "}, "[SPAM] [UNCHECKED] Offer"},
		{"two tags, there in the other order", " [UNCHECKED] [SPAM] Offer", []string{"[SPAM] ", "[UNCHECKED] "}, "[SPAM] [UNCHECKED] Offer"},
		{"the same tag twice", " Offer", []string{"[X] ", "[X] "}, "[X] Offer"},
		{"short tags are not looked for", " !! Offer", []string{"! "}, "! !! Offer"},
		{"tag of no bytes", " Offer", []string{""}, "Offer"},
		{"tag with a line end", " Offer", []string{"[SPAM]\r\nX-Evil: 1 "}, "[SPAM]  X-Evil: 1 Offer"},
		{"tag outside ASCII", " Offer", []string{"[СПАМ] "}, "=?utf-8?B?W9Ch0J/QkNCcXQ==?= Offer"},
		{"tag outside ASCII before an encoded word", " =?utf-8?Q?=C3=BC?=", []string{"[СПАМ] "}, "=?utf-8?B?W9Ch0J/QkNCcXSA=?= =?utf-8?Q?=C3=BC?="},
		{"8-bit subject", " Gr\xc3\xbc\xc3\x9fe", spam, "=?utf-8?B?W1NQQU1dIEdyw7zDn2U=?="},
		{"8-bit subject that is not UTF-8", " Gr\xfc\xdfe", spam, "=?utf-8?B?W1NQQU1dIEdyw7zDn2U=?="},
		{"controls go", " a\x00b\x7fc", spam, "[SPAM] a b c"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tagSubject(tc.raw, tc.tags); got != tc.want {
				t.Errorf("tagSubject(%q, %q)\n got %q\nwant %q", tc.raw, tc.tags, got, tc.want)
			}
		})
	}
}

func TestTagSubjectTwiceIsOnce(t *testing.T) {
	for _, raw := range []string{"Offer", "=?utf-8?Q?Gr=C3=BC=C3=9Fe?=", "Gr\xfc\xdfe", "", strings.Repeat("word ", 300), strings.Repeat("x", 3000)} {
		for _, tag := range []string{"[SPAM] ", "***SPAM***", "[СПАМ] "} {
			once := tagSubject(raw, []string{tag})
			twice := tagSubject(once, []string{tag})
			if squeeze(shown(once)) != squeeze(shown(twice)) {
				t.Errorf("%.40q with %q: shown once %.80q, twice %.80q", raw, tag, shown(once), shown(twice))
			}
		}
	}
}

// shown is what a mail program shows of a field's value.
func shown(value string) string {
	s, err := new(mime.WordDecoder).DecodeHeader(strings.ReplaceAll(value, "\n", ""))
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(s)
}

func FuzzTagSubject(f *testing.F) {
	f.Add("Offer", "[SPAM] ")
	f.Add(" [SPAM] =?utf-8?Q?[SPAM]_x?=", "[SPAM] ")
	f.Add("Re: Re:\r\n [SPAM]\tx", "[СПАМ]")
	f.Add("\xff\xfe=?utf-8?B?////?=", "=?a?b?c?=")
	f.Add(strings.Repeat(" ", 1200)+"x", "[SPAM] ")
	f.Fuzz(func(t *testing.T, raw, tag string) {
		got := tagSubject(raw, []string{tag})
		checkValue(t, "Subject", got)
		if clean := cleanTags([]string{tag}); len(clean) == 1 && utf8.ValidString(tag) {
			want := strings.TrimSpace(clean[0])
			if s := shown(got); !strings.HasPrefix(squeeze(s), squeeze(want)) && isPlain(want) {
				t.Errorf("%q tagged with %q shows %q", raw, tag, s)
			}
		}
	})
}

func squeeze(s string) string { return strings.Join(strings.Fields(s), "") }

// checkValue holds the rules for every value that we write: 7-bit, no controls but
// folds, no line past 998 bytes, no line of blanks alone after a fold.
func checkValue(t *testing.T, name, value string) {
	t.Helper()
	for i, line := range strings.Split(value, "\n") {
		if i == 0 {
			line = name + ": " + line
		} else if strings.Trim(line, " \t") == "" || line[0] != ' ' && line[0] != '\t' {
			t.Errorf("%s: bad fold in %q", name, value)
		}
		if len(line) > lineLimit {
			t.Errorf("%s: line of %d bytes", name, len(line))
		}
		for j := range len(line) {
			if c := line[j]; c != '\t' && (c < ' ' || c > '~') {
				t.Errorf("%s: byte %#x in %q", name, c, value)
				break
			}
		}
	}
}
