package config

import (
	"fmt"
	"reflect"
	"strings"
)

// Markdown returns docs/config.md, made from the structs' tags and the built-in
// values.
func Markdown() string {
	var b strings.Builder
	b.WriteString(`# The configuration file

<!-- Made by "go run ./internal/config/gen"; change internal/config instead. -->

One YAML file: ` + "`--config F`, else `$" + EnvFile + "`, else `" + DefaultFile + "`" + `, else the built-in values
below, which serve as they are. ` + "`sluice config -v`" + ` says which was used, ` + "`sluice config -n`" + ` what differs from the
built-in values, ` + "`sluice check`" + ` finds all mistakes without starting. A file that was named and can't be read is an error.

- Relative paths start at the folder of the file.
- Unknown keys, keys that stand twice, wrong types and missing files are errors that name file, line, column and key.
- Sizes are bytes, or a number with KiB, MiB, GiB or TiB (K, M, G, T mean the same). Durations are written as 90s, 4h,
  1h30m or 30d. Anchors, aliases and tags of YAML aren't read; text that begins with ` + "`@ * & ! %`" + ` has to be quoted.
- SIGHUP reads everything anew, and messages in flight go on; keys that say so need a restart, and the log names those that
  were changed. If the new file has mistakes the old one stays in force,
  which the log and the metric ` + "`sluice_config_last_reload_successful`" + ` tell.
- ` + "`$" + EnvLogLevel + "`" + ` has precedence over ` + "`log.level`" + `; ` + "`sluice config`" + ` shows what is in force.
- Every key is accepted by every build. What this build can't do is an error (exit code 78) where it is asked for: a
  scanner that isn't in it, ` + "`source: postgres`, `driver: postgres`" + `, an address for re-injection, keys to sign with.

`)
	markdownSection(&b, reflect.ValueOf(Default()), "", "")
	b.WriteString("## All built-in values as a file\n\n```yaml\n" + DefaultYAML() + "```\n")
	return b.String()
}

func markdownSection(b *strings.Builder, v reflect.Value, path, doc string) {
	title := "The top of the file"
	if path != "" {
		title = "`" + path + "`"
	}
	fmt.Fprintf(b, "## %s\n\n", title)
	if doc != "" {
		b.WriteString(doc + "\n\n")
	}
	var sections []func()
	rows := 0
	for _, f := range reflect.VisibleFields(v.Type()) {
		key := f.Tag.Get("yaml")
		if key == "" {
			continue
		}
		fv := v.FieldByIndex(f.Index)
		value, ok := scalar(fv)
		if !ok {
			sub := strings.TrimPrefix(path+"."+key, ".")
			sections = append(sections, func() { markdownSection(b, fv, sub, f.Tag.Get("doc")) })
			continue
		}
		if rows == 0 {
			b.WriteString("| key | built-in value | |\n|---|---|---|\n")
		}
		rows++
		fmt.Fprintf(b, "| `%s` | `%s` | %s |\n", key, value, f.Tag.Get("doc"))
	}
	if rows > 0 {
		b.WriteString("\n")
	}
	for _, s := range sections {
		s()
	}
}
