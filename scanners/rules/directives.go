package rules

import (
	"strings"

	"sluice/internal/verdict"
)

// other handles directives that define no rule here. SpamAssassin knows two
// sorts of them: rules that belong to plugins, and settings.
func (r *reader) other(key, rest string) {
	name, _ := word(rest)
	if ruleDirective(key) {
		if !r.validName(name) {
			return
		}
		r.keep(name, key, rest)
		return
	}
	if strings.HasPrefix(key, "replace_") {
		r.group(key, Problem{Severity: Unsupported, Why: "plugin", What: "the plugin ReplaceTags (" + key + ") isn't in this build", Remedy: "rules with its tags are out, named where they stand"})
		if key == "replace_rules" {
			for _, n := range strings.Fields(rest) {
				if len(n) <= maxName && len(r.replaced) < maxRules {
					r.replaced[n] = true
				}
			}
		}
		return
	}
	if remedy, ok := settings[key]; ok || settingFamily(key) {
		if remedy == "" {
			remedy = noEffect
		}
		r.group(key, Problem{Severity: Notice, Why: "setting", What: "the setting " + printable(cut(key, 40), 60) + " has no effect here", Remedy: remedy})
		return
	}
	r.group("unknown "+key, Problem{Severity: Mistake, Why: "syntax",
		What: "unknown directive \"" + printable(cut(key, 40), 60) + "\"", Remedy: "check its spelling; rules begin with header, body, rawbody, uri, full, mimeheader or meta"})
}

// ruleDirective tells directives of plugins that define a rule.
func ruleDirective(key string) bool {
	switch key {
	case "uridnsbl", "urirhsbl", "urirhssub", "uridnssub", "urinsrhsbl", "urinsrhssub", "urifullnsrhsbl", "urifullnsrhssub",
		"askdns", "uri_detail", "uri_block_cidr", "uri_block_cont", "rbl_headers", "hashbl":
		return true
	}
	return false
}

// Remedies for settings that have a place of their own in Sluice.
const (
	inPolicy = "write it into the policy instead"
	inBayes  = "it belongs to another scanner"
	noEffect = "nothing to do"
)

// settings are SpamAssassin's settings that are known and judge nothing here.
var settings = map[string]string{
	"required_score": inPolicy + " (mark_score)", "required_hits": inPolicy + " (mark_score)",
	"rewrite_header": inPolicy + " (subject_tag)", "report_safe": noEffect, "report_contact": noEffect, "report": noEffect,
	"unsafe_report": noEffect, "report_hostname": noEffect, "report_charset": noEffect, "report_wrap_width": noEffect, "add_header": noEffect, "remove_header": noEffect, "clear_headers": noEffect,
	"ok_locales": noEffect, "ok_languages": noEffect, "normalize_charset": noEffect, "trusted_networks": "write milter.relay_networks",
	"internal_networks": "write milter.relay_networks", "msa_networks": "write milter.originating_networks", "originating_ip_headers": noEffect,
	"asn_lookup": noEffect, "url_shortener": noEffect, "url_shortener_get": noEffect, "redirector_pattern": noEffect,
	"adsp_override": inBayes, "enlist_uri_host": noEffect, "enlist_addrlist": noEffect, "skip_rbl_checks": inBayes,
	"parse_dkim_uris": noEffect, "body_part_scan_size": "all of the text is looked at", "rawbody_part_scan_size": "all of the text is looked at",
	"time_limit": "write scanners.rules.timeout", "lock_method": noEffect, "allow_user_rules": noEffect, "tld": noEffect, "unwhitelist_from": inPolicy + " (allow_senders)",
}

// settingFamily tells settings by how they begin.
func settingFamily(key string) bool {
	for _, p := range [...]string{"bayes_", "use_", "def_", "whitelist_", "welcomelist_", "blacklist_", "blocklist_", "unwhitelist_", "unwelcomelist_",
		"unblacklist_", "unblocklist_", "util_rb_", "freemail_", "uridnsbl_", "dns_", "clear_", "fns_", "shortcircuit", "txrep_", "auto_welcomelist_",
		"auto_whitelist_", "user_", "bayes", "dcc_", "pyzor_", "razor_", "spamcop_", "hashbl_", "phishing_", "extracttext_", "geodb_", "country_db_", "ole", "decode_", "score_", "more_spam_", "all_spam_", "asn_", "dkim_", "spf_", "arc_", "envelope_sender_", "always_trust_", "report_", "loadplugin"} {
		if strings.HasPrefix(key, p) {
			return true
		}
	}
	return false
}

// parsePoints reads one value of a score line. SpamAssassin also takes "(1.5)",
// which adds to the score given before; no rule set in use has it.
func parsePoints(s string) (verdict.Score, error) { return verdict.ParseScore(s) }

// printable makes foreign text fit for a log or a terminal.
func printable(s string, n int) string { return verdict.Printable(s, n) }
