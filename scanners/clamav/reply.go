package clamav

import (
	"bytes"
	"strings"
)

// maxReply is the most bytes of a reply that are read.
const maxReply = 64 << 10

type answerKind uint8

const (
	answerGarbage  answerKind = iota // not a reply, or not a whole one
	answerClean                      // exactly OK
	answerFound                      // a detection; name is the signature
	answerTooLarge                   // more than StreamMaxLength
	answerRefused                    // clamd says ERROR; text is why
)

// answer is a reply, understood. The zero value is garbage.
type answer struct {
	kind answerKind
	name string // of the signature
	text string // what clamd said, of refused and garbage
}

// parseReply reads all that clamd sent. The reply of a z-command ends in NUL; LF is
// taken as well. Only one terminated line "<prefix>: OK" is clean: a reply that
// breaks off, or goes on, is garbage, unless any of its lines is a detection. Signature
// names may hold colons and blanks.
func parseReply(b []byte) answer {
	line, rest, terminated := cutLine(b)
	a := parseLine(line)
	switch {
	case !terminated && a.kind == answerFound:
		return a
	case !terminated:
		return answer{text: excerpt(b)}
	case a.kind == answerFound:
		return a
	}
	if rest = bytes.Trim(rest, "\x00\n"); len(rest) > 0 {
		for len(rest) > 0 {
			if line, rest, _ = cutLine(rest); parseLine(line).kind == answerFound {
				return parseLine(line)
			}
		}
		return answer{text: excerpt(b)}
	}
	return a
}

func cutLine(b []byte) (line string, rest []byte, terminated bool) {
	i := bytes.IndexAny(b, "\x00\n")
	if i < 0 {
		return string(b), nil, false
	}
	return string(b[:i]), b[i+1:], true
}

func parseLine(line string) answer {
	prefix, said, hasPrefix := strings.Cut(line, ": ")
	if !hasPrefix {
		said = line
	}
	switch {
	case said == "OK" && hasPrefix && isPrefix(prefix):
		return answer{kind: answerClean}
	case strings.HasSuffix(said, " FOUND"):
		name := strings.TrimSpace(strings.TrimSuffix(said, " FOUND"))
		if name == "" {
			name = "unnamed"
		}
		return answer{kind: answerFound, name: name}
	case strings.HasSuffix(said, "ERROR") && strings.Contains(line, "size limit exceeded"):
		return answer{kind: answerTooLarge}
	case strings.HasSuffix(said, "ERROR"):
		return answer{kind: answerRefused, text: excerpt([]byte(line))}
	}
	return answer{text: excerpt([]byte(line))}
}

// isPrefix reports whether s is what clamd puts before the result of a stream or
// a descriptor: "stream", "fd[10]", or a short word like them.
func isPrefix(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}

// excerpt is enough of a reply to recognise it by.
func excerpt(b []byte) string { return string(b[:min(len(b), 120)]) }
