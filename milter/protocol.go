package milter

import (
	"encoding/binary"

	gomilter "github.com/emersion/go-milter"
)

// Codes that the library doesn't name, or names for its callers only.
const (
	codeUnknown  = gomilter.Code('U') // SMFIC_UNKNOWN
	codeProgress = byte('p')          // SMFIR_PROGRESS
)

const (
	// protocolVersion is the version of the protocol that is spoken with an MTA that
	// offers it or a later one; with others theirs is.
	protocolVersion = 6
	// minVersion is the oldest that is spoken.
	minVersion = 2
	// maxFrame bounds a frame in bytes, its code included.
	maxFrame = 1 << 20
	// maxMacros bounds what the macros of one stage may take in bytes.
	maxMacros = 64 << 10
)

// wantedActions are the changes that a disposition may need.
const wantedActions = gomilter.OptAddHeader | gomilter.OptChangeHeader | gomilter.OptAddRcpt | gomilter.OptRemoveRcpt

// wantedSteps are asked of the MTA as far as it offers them. MAIL and RCPT keep their
// replies: there a message or a recipient can be refused. Skip is left out, for it doesn't
// go with NoBodyReply.
const wantedSteps = gomilter.OptNoUnknown | gomilter.OptNoData | gomilter.OptHeaderLeadingSpace |
	gomilter.OptNoConnReply | gomilter.OptNoHeloReply | gomilter.OptNoHeaderReply |
	gomilter.OptNoEOHReply | gomilter.OptNoBodyReply

// wantedMacros are the macros to be sent at each stage. A list takes the place of the
// stage's own one; stages that aren't named keep theirs (HELO with its TLS macros).
var wantedMacros = [...]struct {
	stage  gomilter.Stage
	macros string
}{
	{gomilter.StageConnect, "j {daemon_name} {daemon_addr} v _ {client_name} {client_addr} {client_ptr} {client_port} {client_resolve}"},
	{gomilter.StageMailFrom, "i {auth_type} {auth_authen} {auth_author} {auth_ssf} {mail_addr} {mail_host} {mail_mailer} {tls_version} {cipher} {cipher_bits} {cert_subject} {cert_issuer}"},
	{gomilter.StageRcptTo, "i {rcpt_addr} {rcpt_host} {rcpt_mailer}"},
	{gomilter.StageEOM, "i {msg_id}"},
}

// terms are what MTA and filter agreed on, or what one of them puts forward.
type terms struct {
	version uint32
	actions gomilter.OptAction
	steps   gomilter.OptProtocol
}

// parseOffer reads the data of an OPTNEG frame.
func parseOffer(data []byte) (terms, bool) {
	if len(data) < 12 {
		return terms{}, false
	}
	return terms{
		version: binary.BigEndian.Uint32(data),
		actions: gomilter.OptAction(binary.BigEndian.Uint32(data[4:])),
		steps:   gomilter.OptProtocol(binary.BigEndian.Uint32(data[8:])),
	}, true
}

// agree returns the answer to an offer: nothing that wasn't offered.
func agree(offer terms) terms {
	t := terms{
		version: min(protocolVersion, offer.version),
		actions: (wantedActions | gomilter.OptSetSymList) & offer.actions,
		steps:   wantedSteps & offer.steps,
	}
	if t.version < 6 {
		t.actions &^= gomilter.OptSetSymList
	}
	return t
}

// appendAnswer appends the OPTNEG frame that tells the MTA the terms.
func appendAnswer(b []byte, t terms) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0, byte(gomilter.CodeOptNeg))
	b = binary.BigEndian.AppendUint32(b, t.version)
	b = binary.BigEndian.AppendUint32(b, uint32(t.actions))
	b = binary.BigEndian.AppendUint32(b, uint32(t.steps))
	if t.actions&gomilter.OptSetSymList != 0 {
		for _, w := range wantedMacros {
			b = binary.BigEndian.AppendUint32(b, uint32(w.stage))
			b = append(b, w.macros...)
			b = append(b, 0)
		}
	}
	binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start-4))
	return b
}

// appendFrame appends a frame of the given code and data, the parts one after another.
func appendFrame[T string | []byte](b []byte, code byte, parts ...T) []byte {
	n := 1
	for _, p := range parts {
		n += len(p)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(n))
	b = append(b, code)
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// replyDue reports whether the MTA waits for a reply to a command under the terms.
func (t terms) replyDue(code gomilter.Code) bool {
	var without gomilter.OptProtocol
	switch code {
	case gomilter.CodeConn:
		without = gomilter.OptNoConnReply
	case gomilter.CodeHelo:
		without = gomilter.OptNoHeloReply
	case gomilter.CodeMail:
		without = gomilter.OptNoMailReply
	case gomilter.CodeRcpt:
		without = gomilter.OptNoRcptReply
	case gomilter.CodeData:
		without = gomilter.OptNoDataReply
	case codeUnknown:
		without = gomilter.OptNoUnknownReply
	case gomilter.CodeHeader:
		without = gomilter.OptNoHeaderReply
	case gomilter.CodeEOH:
		without = gomilter.OptNoEOHReply
	case gomilter.CodeBody:
		without = gomilter.OptNoBodyReply
	case gomilter.CodeEOB, gomilter.CodeOptNeg:
		return true
	default: // ABORT, QUIT, QUIT_NC, macros
		return false
	}
	return t.steps&without == 0
}
