package milter

import (
	"fmt"
	"strings"

	gomilter "github.com/emersion/go-milter"

	"sluice/policy"
)

const (
	// maxReplyLine bounds a line of a reply in bytes as it is sent, its CRLF not counted
	// (RFC 5321 §4.5.3.1.5 allows 512 with it).
	maxReplyLine = 480
	// maxReplyLines bounds their number; Sendmail takes 32.
	maxReplyLines = 16
	// maxReplyID is how long the "(id …)" at the end of a text may be to be kept whole.
	maxReplyID = 100
)

// appendReply appends the frame of an SMTP reply (SMFIR_REPLYCODE) in the form that both
// Postfix and Sendmail pass on: '%' doubled, CRLF between lines, the same code before each,
// '-' after it on all but the last, an enhanced code of the same class, printable ASCII, NUL
// at the end. A code that isn't 4xx or 5xx, which an MTA would take for malformed, becomes
// 451. Lines of the text end in LF; one that is too long is broken at a blank. If there are
// too many the last, which bears the ID, stays.
func appendReply(b []byte, r policy.Reply) []byte {
	return appendFrame(b, byte(gomilter.ActReplyCode), replyText(r), "\x00")
}

func replyText(r policy.Reply) string {
	code, enhanced := r.Code, r.Enhanced
	if code < 400 || code > 599 {
		code, enhanced = 451, "4.3.0"
	}
	enhanced = enhancedCode(code, enhanced)
	lines := replyLines(r.Text)
	var s strings.Builder
	for i, line := range lines {
		sep := byte('-')
		if i == len(lines)-1 {
			sep = ' '
		}
		if i > 0 {
			s.WriteString("\r\n")
		}
		fmt.Fprintf(&s, "%d%c%s %s", code, sep, enhanced, line)
	}
	return s.String()
}

// enhancedCode returns an enhanced status code (RFC 3463 §2) of the reply's class: the one
// that is given, its class mended, or class.0.0 if it isn't one.
func enhancedCode(code int, s string) string {
	class := byte('0' + code/100)
	parts := strings.Split(s, ".")
	ok := len(parts) == 3 && len(parts[0]) == 1
	for _, p := range parts {
		ok = ok && len(p) >= 1 && len(p) <= 3 && strings.Trim(p, "0123456789") == ""
	}
	if !ok {
		return string(class) + ".0.0"
	}
	return string(class) + s[1:]
}

// replyLines breaks a text into lines that fit, at least one, cleaned and with '%' doubled.
func replyLines(text string) []string {
	const room = maxReplyLine - len("550-5.999.999 ")
	var lines []string
	for line := range strings.SplitSeq(strings.TrimRight(text, "\r\n"), "\n") {
		line = strings.Map(printable, strings.TrimRight(line, "\r"))
		for {
			n := fitting(line, room)
			lines = append(lines, strings.ReplaceAll(line[:n], "%", "%%"))
			if line = strings.TrimLeft(line[n:], " "); line == "" {
				break
			}
			if len(lines) > 2*maxReplyLines { // keep the end: jump to the last line's worth
				line = line[max(0, len(line)-room/2):]
			}
		}
		if len(lines) > 4*maxReplyLines {
			lines = append(lines[:maxReplyLines], lines[len(lines)-1])
		}
	}
	if len(lines) > maxReplyLines {
		lines = append(lines[:maxReplyLines-1], lines[len(lines)-1])
	}
	return lines
}

// fitting returns how many bytes of an ASCII line go into room bytes once '%' is doubled,
// breaking after a blank if there is one in the second half, but not inside the "(id …)"
// at the end.
func fitting(line string, room int) int {
	size, blank := 0, 0
	id := strings.LastIndexByte(line, '(')
	if len(line)-id > maxReplyID {
		id = -1
	}
	for i := range len(line) {
		size++
		if line[i] == '%' {
			size++
		}
		if size > room {
			if id > 0 && i > id {
				return id
			}
			if blank > i/2 {
				return blank
			}
			return i
		}
		if line[i] == ' ' {
			blank = i + 1
		}
	}
	return len(line)
}

// printable replaces what isn't printable ASCII: controls vanish, tabs become blanks, all
// else a question mark.
func printable(r rune) rune {
	switch {
	case r == '\t':
		return ' '
	case r < ' ' || r == 0x7f:
		return -1
	case r > 0x7f:
		return '?'
	}
	return r
}

// customReply is the library's form of an SMTP reply.
func customReply(r policy.Reply) gomilter.Response {
	return gomilter.NewResponseStr(byte(gomilter.ActReplyCode), replyText(r))
}
