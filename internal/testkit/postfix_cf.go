package testkit

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
)

// mainCF returns main.cf. The defaults of Postfix hold but for what a test can't
// do with: DNS, the local machine's names and limits on clients.
func (p *Postfix) mainCF(o PostfixOptions) string {
	protocols := "ipv4"
	if HasIPv6() {
		protocols = "all"
	}
	settings := map[string]string{
		"compatibility_level":   "3.6",
		"config_directory":      p.Config,
		"meta_directory":        p.Config,
		"queue_directory":       p.Queue,
		"data_directory":        p.Dir + "/data",
		"maillog_file":          p.Log,
		"maillog_file_prefixes": p.Dir,
		"syslog_name":           "postfix",
		"myhostname":            orString(o.Hostname, "mx.example.org"),
		"mydestination":         "",
		"alias_maps":            "",
		"alias_database":        "",
		"local_recipient_maps":  "",
		"inet_interfaces":       "all",
		"inet_protocols":        protocols,
		"mynetworks":            "127.0.0.0/8",
		"biff":                  "no",
		"append_dot_mydomain":   "no",

		"relay_domains":           "static:all",
		"relayhost":               nextHop(o.Relay),
		"relay_transport":         "smtp",
		"disable_dns_lookups":     "yes",
		"smtp_host_lookup":        "native",
		"smtpd_peername_lookup":   "no",
		"smtp_tls_security_level": "none",

		"smtpd_authorized_xclient_hosts":      "127.0.0.0/8",
		"smtpd_client_connection_count_limit": "0",
		"smtpd_error_sleep_time":              "0",
		"smtpd_hard_error_limit":              "1000",
		"smtpd_soft_error_limit":              "1000",
		"smtpd_client_event_limit_exceptions": "static:all",
		"in_flow_delay":                       "0",
		"smtpd_milters":                       o.SMTPDMilters,
		"non_smtpd_milters":                   o.NonSMTPDMilters,
		"message_size_limit":                  "67108864",
		"mailbox_size_limit":                  "0",
		"enable_long_queue_ids":               "no",
	}
	if o.Relay == "" {
		settings["default_transport"] = "retry:4.3.0 This server keeps its mail"
		settings["relay_transport"] = settings["default_transport"]
	}
	if o.TLS {
		maps.Copy(settings, map[string]string{"smtpd_tls_security_level": "may", "smtpd_tls_chain_files": p.Config + "/key.pem"})
	}
	if o.Feeder {
		maps.Copy(settings, map[string]string{
			"queue_run_delay": "1s", "minimal_backoff_time": "1s", "maximal_backoff_time": "2s",
			"smtp_destination_concurrency_limit": "50", "initial_destination_concurrency": "20",
			// A destination that says 451 at MAIL is not dead.
			"default_destination_concurrency_failed_cohort_limit": "1000000",
			"transport_retry_time":                                "1s",
			"qmgr_message_active_limit":                           "20000",
		})
	}
	maps.Copy(settings, o.Settings)
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&b, "%s = %s\n", name, settings[name])
	}
	return b.String()
}

// masterCF returns master.cf: Debian's services that a relay needs, and two
// entrances on loopback.
func (p *Postfix) masterCF(o PostfixOptions) string {
	chroot := "n"
	if o.Chroot {
		chroot = "y"
	}
	return strings.NewReplacer("@smtp@", p.SMTP, "@submission@", p.Submission, "@y@", chroot).Replace(`# service type private unpriv chroot wakeup maxproc command
@smtp@ inet n - @y@ - - smtpd
@submission@ inet n - @y@ - - smtpd
  -o syslog_name=postfix/submission
  -o milter_macro_daemon_name=ORIGINATING
pickup unix n - @y@ 60 1 pickup
cleanup unix n - @y@ - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - @y@ 1000? 1 tlsmgr
rewrite unix - - @y@ - - trivial-rewrite
bounce unix - - @y@ - 0 bounce
defer unix - - @y@ - 0 bounce
trace unix - - @y@ - 0 bounce
verify unix - - @y@ - 1 verify
flush unix n - @y@ 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - @y@ - - smtp
relay unix - - @y@ - - smtp
showq unix n - @y@ - - showq
error unix - - @y@ - - error
retry unix - - @y@ - - error
discard unix - - @y@ - - discard
anvil unix - - @y@ - 1 anvil
scache unix - - @y@ - 1 scache
postlog unix-dgram n - n - 1 postlogd
`)
}

// nextHop returns host:port in the form of a next hop that isn't looked up.
func nextHop(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return ""
	}
	return "[" + host + "]:" + port
}

func orString(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
