package mail

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	gomessage "github.com/emersion/go-message"

	"sluice/internal/verdict"
)

// readMessage makes a message of text, whose line ends may be LF.
func readMessage(t testing.TB, text string) *Message {
	t.Helper()
	m := newMessage(t, newSpool(t, 256*mib, 0))
	if _, err := m.ReadFrom(strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	return m
}

func readTree(t testing.TB, text string) *Tree {
	t.Helper()
	tree, err := readMessage(t, text).Tree(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// outline prints the tree: path, type and, of leaves, the decoded content.
func outline(t testing.TB, tree *Tree) string {
	t.Helper()
	var b strings.Builder
	for p := range tree.Parts() {
		fmt.Fprintf(&b, "%s %s", p.Path, p.Type)
		if p.IsLeaf() {
			content, err := io.ReadAll(p.Open(t.Context()))
			if err != nil {
				t.Fatalf("part %s: %v", p.Path, err)
			}
			fmt.Fprintf(&b, " %q", content)
		}
		b.WriteByte('\n')
	}
	for _, f := range tree.Findings {
		fmt.Fprintf(&b, "! %s %s\n", f.Symbol, f.Part)
	}
	return b.String()
}

func TestTree(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"plain", "A: 1\n\nhi\n", ` text/plain "hi\r\n"` + "\n"},
		{"no body", "A: 1\n", ` text/plain ""` + "\n"},
		{"two parts", "Content-Type: multipart/mixed; boundary=b\n\npre\n--b\n\none\n--b\nContent-Type: text/html\n\ntwo\n--b--\nepi\n",
			" multipart/mixed\n1 text/plain \"one\"\n2 text/html \"two\"\n"},
		{"empty part and header only", "Content-Type: multipart/mixed; boundary=b\n\n--b\n--b\nContent-Type: a/b\n--b--\n",
			" multipart/mixed\n1 text/plain \"\"\n2 a/b \"\"\n"},
		{"nested, inner not closed", "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: multipart/alternative; boundary=bb\n\n--bb\n\none\n--b\n\ntwo\n--b--\n",
			" multipart/mixed\n1 multipart/alternative\n1.1 text/plain \"one\"\n2 text/plain \"two\"\n"},
		{"after the last delimiter", "Content-Type: multipart/mixed; boundary=b\n\n--b--\n--b\n\none\n--b--\n",
			" multipart/mixed\n1 text/plain \"one\"\n"},
		{"a message", "Content-Type: message/rfc822\n\nSubject: x\n\nin\n", " message/rfc822\n1 text/plain \"in\\r\\n\"\n"},
		{"a message after an mbox line", "Content-Type: message/rfc822\n\n>From x\nContent-Type: a/b\n\nin\n", " message/rfc822\n1 a/b \"in\\r\\n\"\n"},
		{"an empty message", "Content-Type: message/rfc822\n\n", " message/rfc822\n1 text/plain \"\"\n"},
		{"an empty message in a part", "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: message/rfc822\n\nS: x\n\n--b--\n",
			" multipart/mixed\n1 message/rfc822\n1.1 text/plain \"\"\n"},
		{"text between delimiters that should be the last", "Content-Type: multipart/mixed; boundary=b\n\n--b--\nepi\n--b\n\none\n--b--\n",
			" multipart/mixed\n1 text/plain \"epi\"\n2 text/plain \"one\"\n"},
		{"digest", "Content-Type: multipart/digest; boundary=b\n\n--b\n\nSubject: x\n\none\n--b--\n",
			" multipart/digest\n1 message/rfc822\n1.1 text/plain \"one\"\n"},
		{"encoded message", "Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\nQQ==\n",
			" message/rfc822 \"A\"\n! MIME_ENCODED_MESSAGE \n"},
		{"no boundary in the body", "Content-Type: multipart/mixed; boundary=b\n\nhi\n", " multipart/mixed \"hi\\r\\n\"\n"},
		{"no boundary declared", "Content-Type: multipart/mixed\n\nhi\n", " multipart/mixed \"hi\\r\\n\"\n"},
		{"another boundary in the body", "Content-Type: multipart/mixed; boundary=b\n\n--other\nContent-Type: a/b\n\nhi\n",
			" multipart/mixed \"--other\\r\\nContent-Type: a/b\\r\\n\\r\\nhi\\r\\n\"\n! MIME_NO_BOUNDARY \n"},
		{"encoded multipart", "Content-Type: multipart/mixed; boundary=b\nContent-Transfer-Encoding: base64\n\nQQ==\n",
			" multipart/mixed \"A\"\n! MIME_NO_BOUNDARY \n"},
		{"a part that begins with text", "Content-Type: multipart/mixed; boundary=b\n\n--b\nhello there\n\nx\n--b--\n",
			" multipart/mixed\n1 text/plain \"hello there\\r\\n\\r\\nx\"\n"},
		{"blanks after a delimiter", "Content-Type: multipart/mixed; boundary=b\n\n--b \t\n\none\n--b-- \n", " multipart/mixed\n1 text/plain \"one\"\n"},
		{"longer lines are no delimiters", "Content-Type: multipart/mixed; boundary=b\n\n--b\n\n--bx\n--b x\n--b--\n", " multipart/mixed\n1 text/plain \"--bx\\r\\n--b x\"\n"},
		{"blank fold in a part's header", "Content-Type: multipart/mixed; boundary=b\n\n--b\nX: 1\n \nContent-Type: a/b\n\none\n--b--\n", " multipart/mixed\n1 a/b \"one\"\n"},
		{"a parameter that lost its fold", "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: multipart/mixed;\nboundary=c\n\n--c\n\none\n--c--\n--b--\n", " multipart/mixed\n1 multipart/mixed\n1.1 text/plain \"one\"\n"},
		{"base64", "Content-Transfer-Encoding: BASE64\n\naGVs\nbG8=\n", ` text/plain "hello"` + "\n"},
		{"unknown encoding of text", "Content-Transfer-Encoding: x-odd\n\nwords in plain text are read as they are\n", ` text/plain "words in plain text are read as they are\r\n"` + "\n"},
		{"unknown encoding", "Content-Transfer-Encoding: x-odd\n\nH4sICAAAAAAC/2V4YW1wbGUub3JnIWV4YW1wbG\n", ` text/plain "H4sICAAAAAAC/2V4YW1wbGUub3JnIWV4YW1wbG\r\n"` + "\n! MIME_UNKNOWN_ENCODING \n"},
		{"partial", "Content-Type: message/partial; id=1\n\nx\n", " message/partial \"x\\r\\n\"\n! MIME_PARTIAL_MESSAGE \n"},
		{"one word for a type", "Content-Type: multipart; boundary=b\n\n--b\nContent-Type: text\n\none\n", " multipart/mixed\n1 text/plain \"one\\r\\n\"\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tree := readTree(t, c.in)
			if got := outline(t, tree); got != c.want {
				t.Errorf("got\n%swant\n%s", got, c.want)
			}
			checkAccount(t, tree, c.in)
		})
	}
}

// checkAccount holds the invariant that every byte of the message lies in a header
// section, a leaf's body, a preamble, an epilogue, or is a line end or a delimiter line.
func checkAccount(t testing.TB, tree *Tree, in string) {
	t.Helper()
	m := tree.message
	between := func(from, to int64, what string) {
		if from > to {
			t.Fatalf("%s: ranges overlap: %d > %d in %q", what, from, to, in)
		}
		if to-from > 16<<10 {
			t.Fatalf("%s: %d bytes unaccounted for in %.2000q", what, to-from, in)
		}
		gap := make([]byte, to-from)
		if _, err := m.ReadAt(gap, from); err != nil && len(gap) > 0 {
			t.Fatal(err)
		}
		for line := range bytes.Lines(gap) {
			text := string(bytes.TrimRight(line, "\r\n"))
			if strings.TrimSpace(text) != "" && !strings.HasPrefix(text, "--") && !isMboxLine(line) {
				t.Fatalf("%s: %q unaccounted for in %.2000q", what, text, in)
			}
		}
	}
	var check func(p *Part)
	check = func(p *Part) {
		between(p.Header.Range.End, p.Body.Start, p.Path+" after its header")
		if p.IsLeaf() {
			return
		}
		at := p.Body.Start
		if p.Preamble.Len() > 0 {
			at = p.Preamble.End
		}
		for _, c := range p.Children {
			between(at, c.Header.Range.Start, c.Path+" before it")
			check(c)
			at = c.Body.End
		}
		if p.isMessage() {
			between(at, p.Body.End, p.Path+" after its message")
			return
		}
		between(at, p.Epilogue.Start, p.Path+" before its epilogue")
		if p.Epilogue.End != p.Body.End {
			t.Fatalf("epilogue %v ends not with the body %v", p.Epilogue, p.Body)
		}
	}
	check(tree.Root)
	if tree.Root.Body.End != m.Size() {
		t.Fatalf("the root's body ends at %d of %d", tree.Root.Body.End, m.Size())
	}
}

func TestFieldCases(t *testing.T) {
	head := "From: Lee <lee@example.org>\nSubject: x\nMIME-Version: 1.0\n"
	for _, c := range []struct{ name, in, want string }{
		{"02 body line that looks like a field", "Subject: notice\nnode7.example.net: link is up again\nDate: x\n", ` text/plain ""` + "\n"},
		{"07 boundary that never comes", head + "Content-Type: multipart/mixed; boundary=\"-\"\n\nDear member,\n\nthe offer\n", " multipart/mixed \"Dear member,\\r\\n\\r\\nthe offer\\r\\n\"\n"},
		{"10 no closing boundary", head + "Content-Type: multipart/alternative; boundary=\"=-x7\"\n\n--=-x7\nContent-Type: text/plain\n\nBus\n--=-x7\nContent-Type: text/html\n\n<p>Bus</p>\n",
			" multipart/alternative\n1 text/plain \"Bus\"\n2 text/html \"<p>Bus</p>\\r\\n\"\n"},
		{"12 8bits", head + "Content-Transfer-Encoding: 8bits\n\n71 °C\n", " text/plain \"71 °C\\r\\n\"\n"},
		{"12 7bit;", head + "Content-Type: multipart/mixed; boundary=\"c\";\n\n--c\nContent-Type: text/plain; charset=iso-8859-1;\nContent-Transfer-Encoding: 7bit;\n\n\nK\xf6nig\n\n--c--\n",
			" multipart/mixed\n1 text/plain \"\\r\\nK\\xf6nig\\r\\n\"\n"},
		{"12 8bit quote", head + "Content-Transfer-Encoding: 8bit\"\n\nJosé\n", " text/plain \"José\\r\\n\"\n"},
		{"17 whitespace-only folds", head + "To: a,\n \n\tb\nX-Spam-Report: x\n\t\n  * y\n \nContent-Type: multipart/mixed; boundary=\"w1\"\n\n--w1\n\nminutes\n\n--w1\nContent-Type: application/pdf; name=\"m.pdf\"\nContent-Transfer-Encoding: base64\n\nQUJD\n\n--w1--\n",
			" multipart/mixed\n1 text/plain \"minutes\\r\\n\"\n2 application/pdf \"ABC\"\n"},
		{"19 mime-version twice", head + "MIME-Version: 1.0\nContent-Type: multipart/signed; boundary=\"sg\"\n\n--sg\n\noffer\n--sg\nContent-Type: application/pkcs7-signature\nContent-Transfer-Encoding: base64\n\nMDA=\n--sg--\n",
			" multipart/signed\n1 text/plain \"offer\"\n2 application/pkcs7-signature \"00\"\n"},
		{"31 pgp-signed", head + "Content-Type: multipart/signed; micalg=\"pgp-sha512\"; boundary=\"sg9\"\n\n--sg9\nContent-Disposition: inline\n\nout\n--sg9\nContent-Type: application/pgp-signature; name=\"signature.asc\"\n\n-----BEGIN PGP SIGNATURE-----\n\n=7a1B\n-----END PGP SIGNATURE-----\n\n--sg9--\n",
			" multipart/signed\n1 text/plain \"out\"\n2 application/pgp-signature \"-----BEGIN PGP SIGNATURE-----\\r\\n\\r\\n=7a1B\\r\\n-----END PGP SIGNATURE-----\\r\\n\"\n"},
		{"34 report in a message", head + "Content-Type: multipart/mixed; boundary=\"dm\"\n\n--dm\nContent-Type: message/rfc822\nContent-Disposition: attachment\n\nFrom: x\nContent-Type: application/zip; name=\"a!b.zip\"\nContent-Transfer-Encoding: base64\n\nUEs=\n\n--dm--\n",
			" multipart/mixed\n1 message/rfc822\n1.1 application/zip \"PK\"\n"},
		{"41 header of the original", head + "Content-Type: multipart/report; report-type=delivery-status;\n\tboundary=\"D1\"\n\n--D1\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; a\n\n--D1\nContent-Type: text/rfc822-headers\n\nSubject: hello\nContent-Type: multipart/mixed; boundary=\"never\"\n\n--D1--\n",
			" multipart/report\n1 message/delivery-status \"Reporting-MTA: dns; a\\r\\n\"\n2 text/rfc822-headers \"Subject: hello\\r\\nContent-Type: multipart/mixed; boundary=\\\"never\\\"\\r\\n\"\n"},
		{"41 original cut in an attachment", head + "Content-Type: multipart/report; boundary=\"D2\"\n\n--D2\nContent-Type: message/rfc822\n\nSubject: photo\nContent-Type: multipart/mixed; boundary=\"P1\"\n\n--P1\n\nThe photo.\n--P1\nContent-Type: image/jpeg\nContent-Transfer-Encoding: base64\n\nQUJD\n\n--D2--\n",
			" multipart/report\n1 message/rfc822\n1.1 multipart/mixed\n1.1.1 text/plain \"The photo.\"\n1.1.2 image/jpeg \"ABC\"\n"},
		{"43 calendar", head + "Content-Type: multipart/mixed; boundary=\"m\"\n\n--m\nContent-Type: multipart/alternative; boundary=\"a\"\n\n--a\n\nyes\n--a\nContent-Type: text/calendar; charset=\"UTF-8\"; method=REPLY\n\nBEGIN:VCALENDAR\n--a--\n--m\nContent-Type: application/ics; name=\"invite.ics\"\n\nBEGIN:VCALENDAR\n--m--\n",
			" multipart/mixed\n1 multipart/alternative\n1.1 text/plain \"yes\"\n1.2 text/calendar \"BEGIN:VCALENDAR\"\n2 application/ics \"BEGIN:VCALENDAR\"\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tree := readTree(t, c.in)
			if got := outline(t, tree); got != c.want {
				t.Errorf("got\n%swant\n%s", got, c.want)
			}
			checkAccount(t, tree, c.in)
		})
	}
}

func TestPartNamesAndParameters(t *testing.T) {
	for _, c := range []struct{ name, fields, want string }{
		{"plain", `Content-Disposition: attachment; filename=a.exe`, "attachment|a.exe"},
		{"quoted", `Content-Disposition: attachment; filename="a;b.exe"`, "attachment|a;b.exe"},
		{"blanks without quotes", `Content-Disposition: attachment; filename=my file.exe`, "attachment|my file.exe"},
		{"from the type", `Content-Type: a/b; name="x.pdf"`, "|x.pdf"},
		{"encoded word", `Content-Type: a/b; name="=?utf-8?q?=C3=A4.pdf?="`, "|ä.pdf"},
		{"rfc 2231", `Content-Disposition: inline; filename*=iso-8859-1'de'%E4.pdf`, "inline|ä.pdf"},
		{"rfc 2231 sections", `Content-Disposition: inline; filename*1="b.exe"; filename*0*=utf-8''%C3%A4`, "inline|äb.exe"},
		{"language with hyphen", `Content-Disposition: attachment; filename*=utf-8'en-US'x.exe`, "attachment|x.exe"},
		{"bad parameter before", `Content-Disposition: attachment; x:y; =; filename=a.exe`, "attachment|a.exe"},
		{"quote never closed", `Content-Disposition: attachment; filename="a.exe; size=3`, "attachment|a.exe"},
		{"comment", `Content-Disposition: attachment (for (you)); filename=a.exe`, "attachment|a.exe"},
		{"unknown disposition", `Content-Disposition: other; filename=a.exe`, "attachment|a.exe"},
		{"folded", "Content-Disposition: attachment;\n\tfilename=\n a.exe", "attachment|a.exe"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := readTree(t, c.fields+"\n\nx").Root
			if got := p.Disposition + "|" + p.Name; got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestTreeBounds(t *testing.T) {
	nest := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "Content-Type: multipart/mixed; boundary=b%dx\n\n--b%dx\n", i, i)
		}
		return b.String() + "\ndeep\n"
	}
	for _, c := range []struct {
		name, in, symbol string
		parts            int
	}{
		{"63 multiparts deep", nest(63), "", 64},
		{"64 multiparts deep", nest(64), symbolTooDeep, 64},
		{"1000 multiparts deep", nest(1000), symbolTooDeep, 64},
		{"1000 messages deep", strings.Repeat("Content-Type: message/rfc822\n\n", 1000), symbolTooDeep, 64},
		{"2000 parts", "Content-Type: multipart/mixed; boundary=b\n\n" + strings.Repeat("--b\n\nx\n", 1999), "", 2000},
		{"too many parts", "Content-Type: multipart/mixed; boundary=b\n\n" + strings.Repeat("--b\n\nx\n", 50_000), symbolTooManyParts, 2000},
		{"too many parts after last delimiters", "Content-Type: multipart/mixed; boundary=b\n\n" + strings.Repeat("--b--\nhello\n", 50_000), symbolTooManyParts, 2000},
		{"many messages", "Content-Type: multipart/digest; boundary=b\n\n" + strings.Repeat("--b\n\nS: x\n\nx\n", 5000), symbolTooManyParts, 2000},
		{"long part header", "Content-Type: multipart/mixed; boundary=b\n\n--b\n" + strings.Repeat("X: y\n", 100_000) + "\nx\n--b--\n", symbolHeaderTooLong, 2},
		{"long headers of many parts", "Content-Type: multipart/mixed; boundary=b\n\n" + strings.Repeat("--b\n"+strings.Repeat("X: y\n", 2000)+"\nx\n", 60), symbolHeaderTooLong, 61},
		{"long boundary", "Content-Type: multipart/mixed; boundary=" + strings.Repeat("b", 5000) + "\n\n--" + strings.Repeat("b", 5000) + "\n\nx\n", symbolNoBoundary, 1},
		{"many fields", strings.Repeat("X: y\n", 50_000) + "\nx\n", symbolHeaderTooLong, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			tree := readTree(t, c.in)
			checkAccount(t, tree, c.in)
			parts := 0
			for range tree.Parts() {
				parts++
			}
			found := ""
			for _, f := range tree.Findings {
				found = f.Symbol
				if f.Kind != verdict.KindUnchecked || f.Scanner != verdict.FinderReader || f.Description == "" {
					t.Errorf("finding %+v", f)
				}
			}
			if parts != c.parts || found != c.symbol {
				t.Errorf("%d parts, %q; want %d, %q", parts, found, c.parts, c.symbol)
			}
		})
	}
}

// The tree is made while the message arrives, and one maker serves all.
func TestTreeWhileItArrives(t *testing.T) {
	m := newMessage(t, newSpool(t, mib, 0))
	results := make(chan *Tree)
	for range 3 {
		go func() {
			tree, err := m.Tree(t.Context())
			if err != nil {
				t.Error(err)
			}
			results <- tree
		}()
	}
	if err := m.WriteField("Content-Type", " multipart/mixed;\n boundary=b"); err != nil {
		t.Fatal(err)
	}
	if err := m.EndHeader(); err != nil {
		t.Fatal(err)
	}
	writeAll(t, m, []byte("--b\r\n\r\none\r\n--b\r\n\r\ntwo\r\n--b--\r\n"), 1)
	if err := m.Complete(); err != nil {
		t.Fatal(err)
	}
	first := <-results
	for range 2 {
		if other := <-results; other != first {
			t.Error("the tree was made more than once")
		}
	}
	if got := outline(t, first); got != " multipart/mixed\n1 text/plain \"one\"\n2 text/plain \"two\"\n" {
		t.Errorf("got %s", got)
	}
}

func TestTreeEnds(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(m *Message, cancel func())
		want error
	}{
		{"aborted", func(m *Message, _ func()) { m.Abort() }, ErrAborted},
		{"closed", func(m *Message, _ func()) { _ = m.Close() }, ErrAborted},
		{"cancelled", func(_ *Message, cancel func()) { cancel() }, context.Canceled},
	} {
		for _, header := range []bool{false, true} {
			m := newMessage(t, newSpool(t, mib, 0))
			if header {
				if err := m.EndHeader(); err != nil {
					t.Fatal(err)
				}
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			got := make(chan error)
			go func() {
				_, err := m.Tree(ctx)
				got <- err
			}()
			c.end(m, cancel)
			if err := <-got; !errors.Is(err, c.want) {
				t.Errorf("%s: got %v", c.name, err)
			}
		}
	}
}

// A fault of the parser makes the message unchecked, not the daemon dead.
func TestParserPanics(t *testing.T) {
	m := readMessage(t, "A: 1\n\nbody\n")
	spool := m.spool
	m.spool = nil // whatever goes wrong first
	tree, err := m.parse()
	m.spool = spool
	if err != nil {
		t.Fatal(err)
	}
	if got, want := outline(t, tree), " text/plain \"body\\r\\n\"\n! MIME_UNREADABLE \n"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if !strings.Contains(tree.Panic, "nil pointer") || !strings.Contains(tree.Panic, "parse.go") {
		t.Errorf("panic %q", tree.Panic)
	}
}

func TestDecoders(t *testing.T) {
	for _, c := range []struct {
		name, encoding, in, want string
	}{
		{"base64", "base64", "aGVsbG8gd29ybGQ=", "hello world"},
		{"base64 with junk", "base64", "aGV\xffsbG8*gd2 9yb\r\nGQ=", "hello world"},
		{"base64 goes on after padding", "base64", "aGVsbG8=\r\naGVsbG8=", "hellohello"},
		{"base64 without padding", "base64", "aGVsbG8", "hello"},
		{"base64 one letter too many", "base64", "aGVsbG8=Q", "hello"},
		{"qp", "quoted-printable", "a=3Db=c3=BC=\r\nc = \r\nd=", "a=büc d"},
		{"qp broken", "quoted-printable", "=zz = x =4", "=zz = x =4"},
		{"qp soft break with blanks", "quoted-printable", "a=  \t\r\nb=\nc", "abc"},
		{"qp long line", "quoted-printable", strings.Repeat("x", 100_000) + "=41", strings.Repeat("x", 100_000) + "A"},
		{"qp nul", "quoted-printable", "a\x00=00b", "a\x00\x00b"},
		{"identity", "8bit", "\x00\xff\r\n", "\x00\xff\r\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, coding := parseCoding(c.encoding)
			for _, r := range []io.Reader{strings.NewReader(c.in), iotest.OneByteReader(strings.NewReader(c.in)), iotest.DataErrReader(strings.NewReader(c.in))} {
				got, err := io.ReadAll(coding.decode(r, int64(len(c.in))))
				if err != nil || string(got) != c.want {
					t.Errorf("got %.100q, %v, want %.100q", got, err, c.want)
				}
			}
			broken := errors.New("broken")
			if _, err := io.ReadAll(coding.decode(iotest.ErrReader(broken), 1000)); !errors.Is(err, broken) {
				t.Errorf("a read error became %v", err)
			}
		})
	}
}

// On well-formed mail the tree is go-message's.
func TestTreeAgreesWithGoMessage(t *testing.T) {
	var body strings.Builder
	body.WriteString("Content-Type: multipart/mixed; boundary=\"a b\"\r\n\r\npre\r\n--a b\r\nContent-Type: multipart/alternative; boundary=i\r\n\r\n" +
		"--i\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nGr=C3=BC=\r\n=C3=9Fe=20\r\n--i\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<p>x\r\n\r\n--i--\r\n\r\n--a b\r\nContent-Type: a/b\r\nContent-Transfer-Encoding: base64\r\n\r\n")
	enc := base64.StdEncoding.EncodeToString(randomBytes(30_000, 3))
	for len(enc) > 76 {
		body.WriteString(enc[:76] + "\r\n")
		enc = enc[76:]
	}
	body.WriteString(enc + "\r\n--a b--\r\n")
	e, err := gomessage.Read(strings.NewReader(body.String()))
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	err = e.Walk(func(_ []int, e *gomessage.Entity, err error) error {
		if err != nil {
			return err
		}
		typ, _, err := e.Header.ContentType()
		if err != nil {
			return err
		}
		want.WriteString(typ)
		if !strings.HasPrefix(typ, "multipart/") {
			content, err := io.ReadAll(e.Body)
			if err != nil {
				return err
			}
			fmt.Fprintf(&want, " %q", content)
		}
		want.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for line := range strings.Lines(outline(t, readTree(t, body.String()))) {
		_, rest, _ := strings.Cut(line, " ")
		got.WriteString(rest)
	}
	if got.String() != want.String() {
		t.Errorf("got %.500s\nwant %.500s", got.String(), want.String())
	}
}

func FuzzMessage(f *testing.F) {
	for _, s := range []string{
		"A: 1\n\nbody", "Content-Type: multipart/mixed; boundary=b\n\nx\n--b\n\none\n--b--\nepi\n--b\n",
		"Content-Type: message/rfc822\n\nFrom x\nContent-Type: multipart/digest; boundary=\"b\"\n\n--b\n--b\n\n--b--",
		"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: multipart/mixed; boundary=bb\r\n\r\n--bb\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=3\r\n--b",
		"Content-Type: text/html; charset=utf-16\nContent-Transfer-Encoding: base64\n\nPGI+=aGk=",
		"From x\n y\n: z\n", "Content-Type: text/html\n\n<a href=http://example.org/>x</a><p style='display:none'>y",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m := newMessage(t, newSpool(t, 64*mib, 0))
		if _, err := m.ReadFrom(bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
		tree, err := m.Tree(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		checkAccount(t, tree, string(data))
		for p := range tree.Parts() {
			content, err := io.ReadAll(p.Open(t.Context()))
			if err != nil {
				t.Fatal(err)
			}
			if int64(len(content)) > p.Body.Len() {
				t.Fatal("decoding makes content longer")
			}
		}
		if _, err := tree.Rendered(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzHeaderField(f *testing.F) {
	f.Add("Content-Type", ` a/b; x="y\"; z*0*=utf-8''%41; z*1=b; (c (d)) e=f`)
	f.Add("Content-Transfer-Encoding", ` "base64" (x);`)
	f.Add("Subject", " =?utf-8?q?=41?=\r\n =?x?b?QQ?=")
	f.Fuzz(func(t *testing.T, name, value string) {
		m := newMessage(t, newSpool(t, 64*mib, 0))
		if err := m.WriteField(name, value); err != nil {
			t.Fatal(err)
		}
		if err := m.EndHeader(); err != nil {
			t.Fatal(err)
		}
		if err := m.Complete(); err != nil {
			t.Fatal(err)
		}
		field := m.Header().Fields[0]
		raw := make([]byte, field.Range.Len())
		if _, err := m.ReadAt(raw, field.Range.Start); err != nil || string(raw) != field.Name+":"+field.Value+"\r\n" {
			t.Fatalf("raw %q, %v", raw, err)
		}
		if m.Size() != field.Range.End+2 {
			t.Fatalf("size %d, field ends at %d", m.Size(), field.Range.End)
		}
		typ, params := parseMedia(value)
		if typ != strings.ToLower(typ) || len(params) > maxParams {
			t.Fatalf("type %q, %d parameters", typ, len(params))
		}
		parseCoding(value)
		_ = field.Text()
	})
}

func FuzzDecoders(f *testing.F) {
	f.Add([]byte("aGVsbG8="), []byte("a=3D=\r\n"))
	f.Fuzz(func(t *testing.T, plain, encoded []byte) {
		std := base64.StdEncoding.EncodeToString(plain)
		got, err := io.ReadAll(codingBase64.decode(strings.NewReader(std), int64(len(std))))
		if err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("base64 of %q gave %q, %v", plain, got, err)
		}
		for _, c := range []coding{codingBase64, codingQP, codingIdentity} {
			whole, err := io.ReadAll(c.decode(bytes.NewReader(encoded), int64(len(encoded))))
			if err != nil || len(whole) > len(encoded) {
				t.Fatalf("%d bytes from %d, %v", len(whole), len(encoded), err)
			}
			slow, err := io.ReadAll(c.decode(iotest.OneByteReader(bytes.NewReader(encoded)), 3))
			if err != nil || !bytes.Equal(whole, slow) {
				t.Fatalf("in pieces %q, at once %q, %v", slow, whole, err)
			}
		}
	})
}

func BenchmarkTree(b *testing.B) {
	for _, size := range []int{5 << 10, mib, 25 * mib} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			line := strings.Repeat("QUJD", 19) + "\r\n"
			text := "Subject: x\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nhello\r\n--b\r\nContent-Type: a/b\r\nContent-Transfer-Encoding: base64\r\n\r\n" +
				strings.Repeat(line, size/len(line)) + "--b--\r\n"
			m := readMessage(b, text)
			b.SetBytes(m.Size())
			b.ReportAllocs()
			defer reportCPU(b)()
			for b.Loop() {
				if _, err := m.parse(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
