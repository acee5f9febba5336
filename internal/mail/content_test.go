package mail

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"sluice/internal/testkit"
)

func render(t testing.TB, text string) *Content {
	t.Helper()
	c, err := readTree(t, text).Rendered(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestParagraphs(t *testing.T) {
	long := strings.Repeat("word ", 1000)
	for _, c := range []struct {
		name, in string
		want     []string
	}{
		{"lines run together", "a\nb\tc  d\n", []string{"a b c d "}},
		{"an empty line parts", "a\n\nb", []string{"a", "b"}},
		{"blanks between", "a \n \t\n b", []string{"a ", " b"}},
		{"no-break space", "a\u00a0\u00a0b é", []string{"a b é"}},
		{"long", long, []string{long[:2045], long[2045:4090], long[4090:]}},
		{"long without blanks", strings.Repeat("ü", 1500), []string{strings.Repeat("ü", 1024), strings.Repeat("ü", 476)}},
		{"nothing", " \n\n ", []string{" ", " "}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if d := cmp.Diff(c.want, paragraphs(c.in)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestRendered(t *testing.T) {
	for _, c := range []struct {
		name, in   string
		paragraphs []string
		uris       []URI
	}{
		{"plain", "Subject: s\n\nHello\nyou\n\nhttps://example.org/a?b=c. (www.example.net) mailto:kim@example.org\n",
			[]string{"Hello you", "https://example.org/a?b=c. (www.example.net) mailto:kim@example.org "},
			[]URI{{URI: "https://example.org/a?b=c"}, {URI: "http://www.example.net"}, {URI: "mailto:kim@example.org"}}},
		{"html", "Content-Type: text/html\n\n<html><head><title>T</title><style>p{}</style><script>var x='<p>no'</script></head><body><p>One <b>b</b>old\nword</p><p>Two<br>three &amp; f&uuml;nf<!-- no --></body>",
			[]string{"T ", "One bold word ", "Two three & fünf"}, nil},
		{"links", "Content-Type: text/html\n\n<a href=\" http://example.org/\nx \">The  <b>bank</b></a> <a href='//example.net/'>b</a><img src=cid:x><a href=#top>c</a><a href=HTTP://example.org/y>http://www.example.com/</a>",
			nil, []URI{{URI: "http://example.org/x", Text: "The bank"}, {URI: "http://example.net/", Text: "b"}, {URI: "HTTP://example.org/y", Text: "http://www.example.com/"}, {URI: "http://www.example.com/"}}},
		{"charset", "Content-Type: text/plain; charset=iso-8859-2\nContent-Transfer-Encoding: quoted-printable\n\n=B1=E6\n", []string{"ąć "}, nil},
		{"charset nobody knows", "Content-Type: text/plain; charset=x-odd\nContent-Transfer-Encoding: quoted-printable\n\ngr=FC=DFe\n", []string{"grüße "}, nil},
		{"not the utf-8 it claims", "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\ngr=FC=DFe\n", []string{"grüße "}, nil},
		{"utf-16", "Content-Type: text/plain; charset=utf-16le\nContent-Transfer-Encoding: base64\n\naABpAA0ACgANAAoAeQBvAA0ACgA=\n", []string{"hi", "yo "}, nil},
		{"charset in html", "Content-Type: text/html\nContent-Transfer-Encoding: quoted-printable\n\n<meta charset=3D\"iso-8859-2\"><p>=B1\n", []string{"ą "}, nil},
		{"a tag that never ends", "Content-Type: text/html\n\nx <a title=\"y z", []string{"x <a title=\"y z"}, nil},
		{"a multipart without parts", "Content-Type: multipart/mixed; boundary=b\n\nread me\n", []string{"read me "}, nil},
		{"parts", "Content-Type: multipart/mixed; boundary=b\n\n--b\n\none\n--b\nContent-Type: image/png\n\nno\n--b\n\nhttp://example.org/\n--b--\n", []string{"one http://example.org/"}, []URI{{URI: "http://example.org/", Part: "3"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := render(t, c.in)
			if len(got.Findings) > 0 {
				t.Errorf("findings %v", got.Findings)
			}
			if c.paragraphs != nil {
				if d := cmp.Diff(c.paragraphs, got.Paragraphs); d != "" {
					t.Error(d)
				}
			}
			if d := cmp.Diff(c.uris, got.URIs); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestHTMLFacts(t *testing.T) {
	got := render(t, "Content-Type: text/html\n\n<img><IMG/><a>x</a><form></form><iframe></iframe><script></script>"+
		"seen<div style='Display : none !important'>a<div>b</div>c</div>seen<p hidden>d<p>seen<span style=\"font-size:0px;color:red\">e</span>"+
		"<table style='font-size:0'><td>g<p style='font-size:14px'>seen</p></td></table><div style='max-height:0;overflow:hidden'>h</div><div style='max-height:0'>seen</div></nothing>"+
		"<b style='font-size:0.9em'>seen</b><i style='opacity:0'>f</i><br style='display:none'>seen").HTML
	want := HTMLFacts{Parts: 1, Images: 2, Links: 1, Forms: 1, Scripts: 1, Iframes: 1, Hidden: 8, HiddenText: "abcdeghf"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestRawChunks(t *testing.T) {
	text := strings.Repeat(strings.Repeat("x", 99)+"\n", 100)
	got := render(t, "\n"+text).Raw
	if strings.Join(got, "") != text {
		t.Error("chunks are not the text")
	}
	for i, c := range got {
		if len(c) > maxChunk || i < len(got)-1 && (len(c) < minChunk || c[len(c)-1] != '\n') {
			t.Errorf("chunk %d has %d bytes, ends in %q", i, len(c), c[len(c)-1])
		}
	}
	calendar := render(t, "Content-Type: text/calendar\n\nBEGIN:VCALENDAR\n")
	if len(calendar.Raw) != 0 || len(calendar.Paragraphs) != 1 {
		t.Errorf("calendar: %q, %q", calendar.Raw, calendar.Paragraphs)
	}
	report := render(t, "Content-Type: message/delivery-status\n\nAction: failed\n")
	if len(report.Raw) != 1 || len(report.Paragraphs) != 0 {
		t.Errorf("report: %q, %q", report.Raw, report.Paragraphs)
	}
}

// Field cases 07, 12 and 52: the test string is seen by body and rawbody rules.
func TestTestStringIsSeen(t *testing.T) {
	gtube := string(testkit.GTUBE())
	padding := strings.Repeat("harmless words that fill a line of the mail, one after the other\n", 1_500_000/66)
	for _, c := range []struct{ name, in string }{
		{"07 boundary that never comes", "Content-Type: multipart/mixed; boundary=\"-\"\n\nDear member,\n\n" + gtube + "\n"},
		{"12 8bits", "Content-Transfer-Encoding: 8bits\n\nDisk 2\n\n" + gtube + "\n"},
		{"52 before the padding", "\nDear friend,\n\n" + gtube + "\n\n" + padding},
		{"52 behind the padding", "\n" + padding + "\n" + gtube + "\n"},
		{"52 in a part behind it", "Content-Type: multipart/mixed; boundary=pd\n\n--pd\nContent-Type: text/csv\n\n" + padding + "\n--pd\n\nDear friend,\n\n" + gtube + "\n\n--pd--\n"},
		{"html", "Content-Type: text/html\n\n<p>" + gtube},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := render(t, c.in)
			sees := func(s string) bool { return strings.Contains(s, gtube) }
			if !slices.ContainsFunc(got.Paragraphs, sees) || !slices.ContainsFunc(got.Raw, sees) {
				t.Error("not seen")
			}
			if len(got.Findings) != 0 {
				t.Errorf("findings %v", got.Findings)
			}
		})
	}
}

func TestContentBounds(t *testing.T) {
	part := "--b\nContent-Type: text/plain\n\n" + strings.Repeat("0123456789abcde\n", 3<<20/16)
	for _, c := range []struct {
		name, in, symbol string
	}{
		{"long part", "\n" + strings.Repeat("0123456789abcde\n", 5<<20/16), symbolTextTooLong},
		{"many parts", "Content-Type: multipart/mixed; boundary=b\n\n" + strings.Repeat(part, 3), symbolTextTooLong},
		{"many tags", "Content-Type: text/html\n\n" + strings.Repeat("<b>", maxTokens+1) + "http://example.org/", symbolTextTooLong},
		{"many addresses", "\n" + manyURIs(maxURIs+1), symbolTooManyURIs},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := render(t, c.in)
			if len(got.Findings) != 1 || got.Findings[0].Symbol != c.symbol {
				t.Fatalf("findings %v", got.Findings)
			}
			n := 0
			for _, s := range got.Raw {
				n += len(s)
			}
			if n > maxTextMessage || len(got.URIs) > maxURIs {
				t.Errorf("%d bytes, %d addresses", n, len(got.URIs))
			}
		})
	}
	got := render(t, "Content-Type: text/html\n\n"+strings.Repeat("<b>", maxTokens+1)+"http://example.org/")
	if len(got.URIs) != 1 {
		t.Error("what follows too many tags is not read as text")
	}
}

func manyURIs(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "http://example.org/%d\n", i)
	}
	return b.String()
}

func TestRenderedIsSharedAndCounted(t *testing.T) {
	s := newSpool(t, 64*mib, 0)
	m := s.New()
	if _, err := m.ReadFrom(strings.NewReader("\n" + strings.Repeat("x\n", 50_000))); err != nil {
		t.Fatal(err)
	}
	tree, err := m.Tree(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	before, _ := s.Used()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := tree.Rendered(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
	first, err := tree.Rendered(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if second, err := tree.Rendered(t.Context()); err != nil || second != first {
		t.Errorf("second call: %p, %v; first %p", second, err, first)
	}
	if after, _ := s.Used(); after < before+100_000 {
		t.Errorf("the text is not counted: %d before, %d after", before, after)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
}

// Whatever is left open, text is looked at and the list of open elements stays short.
func TestHTMLNesting(t *testing.T) {
	r := &renderer{left: maxTextMessage, seen: map[string]int{}}
	in := strings.Repeat("<div>", 10_000) + "seen" + strings.Repeat("</b>", 10_000) + "<a href=http://example.org/>x"
	if err := r.html(t.Context(), "", in); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(paragraphs(r.text.String()), ""); strings.TrimSpace(got) != "seenx" || len(r.content.URIs) != 1 || r.content.HTML.Hidden != 0 {
		t.Errorf("got %q, %v, %+v", got, r.content.URIs, r.content.HTML)
	}
}

// The work for a message grows as its size, whatever is in it.
func TestWorkIsLinear(t *testing.T) {
	deep := strings.Builder{}
	for i := range maxDepth - 1 {
		fmt.Fprintf(&deep, "Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n", i, i)
	}
	for _, c := range []struct{ name, head, unit string }{
		{"lines of dashes", deep.String(), "\n--x"},
		{"part after part", "Content-Type: multipart/mixed; boundary=b\n\n", "--b\n\nx\n"},
		{"nearly a delimiter", "Content-Type: multipart/mixed; boundary=b\n\n", "--b x\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			work := func(n int) int {
				m := readMessage(t, c.head+strings.Repeat(c.unit, n))
				p := newParser(m, m.Header(), m.bodyOff)
				if err := p.run(bufio.NewReader(m.Reader(t.Context(), m.bodyOff))); err != nil {
					t.Fatal(err)
				}
				return p.compared
			}
			for _, n := range []int{1000, 2000, 4000} {
				if got := work(n); got > maxDepth*(n+maxDepth) {
					t.Errorf("%d comparisons for %d lines", got, n)
				}
			}
		})
	}
}

func FuzzHTML(f *testing.F) {
	f.Add("<a href=x>y</a><p style=display:none>z")
	f.Add("<plaintext><b>&lt;&#0;&nbsp;<!-- <title>x")
	f.Add("http://www.example.org/www.x\u00a0mailto:")
	f.Fuzz(func(t *testing.T, text string) {
		r := &renderer{left: maxTextMessage, seen: map[string]int{}}
		text = validText(text)
		if err := r.html(t.Context(), "1", text); err != nil {
			t.Fatal(err)
		}
		// Each tag adds at most two line ends, an entity at most its own length,
		// and the rest of an unfinished tag comes once.
		if out := r.text.Len(); out > 2*len(text)+2 {
			t.Fatalf("%d bytes of text from %d", out, len(text))
		}
		if !utf8.ValidString(r.text.String()) {
			t.Fatalf("text is not UTF-8: %q", r.text.String())
		}
		for _, u := range r.content.URIs {
			if u.URI == "" || len(u.URI) > maxURI+8 || len(u.Text) > 2*maxLinkText {
				t.Fatalf("address %q with text %q", u.URI, u.Text)
			}
		}
		joined := strings.Join(paragraphs(r.text.String()), "")
		if strings.ContainsAny(joined, "\n\t\r") || strings.Contains(joined, "\u00a0") {
			t.Fatalf("white space is left: %q", joined)
		}
	})
}

func BenchmarkRendered(b *testing.B) {
	newsletter := "Content-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n" +
		strings.Repeat("<tr><td style=3D\"color:#333;font-size:14px\"><a href=3D\"https://example.org/item?id=3D123\">Read=\n more</a> about it in our letter.</td></tr>\n", 350)
	for _, c := range []struct{ name, in string }{
		{"plain 5KiB", "Subject: x\n\n" + strings.Repeat("some words in a line of the text, as people write them\n", 95)},
		{"newsletter 50KiB", newsletter},
		{"plain 1MiB", "\n" + strings.Repeat("some words in a line of the text, as people write them\n", mib/55)},
	} {
		b.Run(c.name, func(b *testing.B) {
			m := readMessage(b, c.in)
			b.SetBytes(m.Size())
			b.ReportAllocs()
			defer reportCPU(b)()
			for b.Loop() {
				tree, err := m.parse()
				if err != nil {
					b.Fatal(err)
				}
				if _, err := tree.Rendered(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
