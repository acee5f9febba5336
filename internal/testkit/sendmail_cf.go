package testkit

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
)

// configuration returns sendmail.cf. It is written by hand: all that it has to do
// is to ask the filters and to relay to one place.
func (s *Sendmail) configuration(o SendmailOptions) (string, error) {
	_, port, err := net.SplitHostPort(s.SMTP)
	if err != nil {
		return "", err
	}
	relayHost, relayPort, err := net.SplitHostPort(o.Relay)
	if err != nil {
		return "", fmt.Errorf("relay: %w", err)
	}
	settings := map[string]string{
		"QueueDirectory":    s.Queue,
		"PidFile":           s.Dir + "/pid",
		"ServiceSwitchFile": s.Dir + "/service.switch",
		"HelpFile":          s.Dir + "/helpfile",
		"DeliveryMode":      "background",
		"Timeout.ident":     "0",
		"MinQueueAge":       "1s",
		"QueueLA":           "1000",
		"RefuseLA":          "1000",
		"DelayLA":           "1000",
		// Sockets of filters lie below /tmp.
		"DontBlameSendmail":       "TrustStickyBit",
		"DontProbeInterfaces":     "true",
		"EightBitMode":            "pass8",
		"PrivacyOptions":          "noetrn,noexpn,novrfy",
		"SmtpGreetingMessage":     "$j Sendmail $v; $b",
		"DefaultUser":             "65534:65534",
		"MaxHopCount":             "100",
		"BadRcptThrottle":         "0",
		"MaxRecipientsPerMessage": "1000",
		// The macros that the cf package of Sendmail 8.17 sends, facts of every
		// installation.
		"Milter.macros.connect": "j, _, {daemon_name}, {if_name}, {if_addr}",
		"Milter.macros.helo":    "{tls_version}, {cipher}, {cipher_bits}, {cert_subject}, {cert_issuer}",
		"Milter.macros.envfrom": "i, {auth_type}, {auth_authen}, {auth_ssf}, {auth_author}, {mail_mailer}, {mail_host}, {mail_addr}",
		"Milter.macros.envrcpt": "{rcpt_mailer}, {rcpt_host}, {rcpt_addr}",
		"Milter.macros.eom":     "{msg_id}",
	}
	maps.Copy(settings, o.Settings)
	var b strings.Builder
	b.WriteString("V10/Berkeley\nDjmx.example.org\nDnMAILER-DAEMON\n")
	fmt.Fprintf(&b, "O DaemonPortOptions=Name=MTA, Addr=127.0.0.1, Port=%s\n", port)
	if s.SMTP6 != "" {
		fmt.Fprintf(&b, "O DaemonPortOptions=Name=MTA-v6, Family=inet6, Addr=::1, Port=%s\n", port)
	}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&b, "O %s=%s\n", name, settings[name])
	}
	var filters []string
	for i, socket := range strings.Fields(o.Milter) {
		name := fmt.Sprintf("filter%d", i+1)
		filters = append(filters, name)
		fmt.Fprintf(&b, "X%s, S=%s, F=T, T=%s\n", name, socket, orString(o.MilterTimeouts, "C:5m;S:10s;R:10s;E:5m"))
	}
	if len(filters) > 0 {
		fmt.Fprintf(&b, "O InputMailFilters=%s\n", strings.Join(filters, ", "))
	}
	b.WriteString(strings.NewReplacer("@host@", relayHost, "@port@", relayPort).Replace(sendmailRules))
	return b.String(), nil
}

// sendmailRules are the trusted users, the header fields that are added where
// missing, the rewriting rules (3 brings an address into the form local<@domain>,
// 4 back, 0 chooses the mailer) and the mailers, all of which relay.
const sendmailRules = `Troot
Tdaemon
HReceived: $?sfrom $s $.$?_($?s$|from $.$_)
	$.by $j id $i; $b
H?D?Date: $a
H?F?From: <$g>
H?M?Message-Id: <$t.$i@$j>
S3
R$@			$@ <@>
R$* < @ $+ >		$@ $1 < @ $2 >
R$* < $* > $*		$: $2
R$+ @ $+		$@ $1 < @ $2 >
S4
R<@>			$@
R$* < @ $+ >		$@ $1 @ $2
S0
R<@>			$#local $: MAILER-DAEMON
R$*			$#relay $@ [@host@] $: $1
S1
S2
Mrelay, P=[IPC], F=mDFMuXa8, S=1, R=2, E=\r\n, L=990, T=DNS/RFC822/SMTP, A=TCP $h @port@
Mlocal, P=[IPC], F=lmDFMuXa8, S=1, R=2, E=\r\n, L=990, T=DNS/RFC822/SMTP, A=TCP [@host@] @port@
Mprog, P=/bin/false, F=lsDFMoqeu9, S=1, R=2, D=/, T=X-Unix/X-Unix/X-Unix, A=false
`
