package main

import (
	"runtime"
	"runtime/debug"

	"sluice/internal/config"
	"sluice/policy"
	"sluice/scanners/clamav"
	"sluice/scanners/rules"
)

// version is this program's; CHANGELOG.md says what is in it.
const version = "0.1.0"

// thisBuild says what this build can do.
var thisBuild = config.Build{Scanners: []string{clamav.Name, rules.Name}}

// built has the names of scanners and capabilities that policies can use.
func built() map[string]bool { return map[string]bool{clamav.Name: true, rules.Name: true} }

// capabilities says what of a disposition can be carried out.
func capabilities() policy.Capabilities { return policy.Capabilities{} }

// revision is the commit this program was built from, "" if unknown.
func revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	rev, dirty := "", ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			rev = s.Value[:min(12, len(s.Value))]
		case "vcs.modified":
			if s.Value == "true" {
				dirty = "+changes"
			}
		}
	}
	return rev + dirty
}

// versionLine is what `sluice version` prints.
func versionLine() string {
	line := "sluice " + version
	if rev := revision(); rev != "" {
		line += " (" + rev + ")"
	}
	return line + " " + runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH
}
