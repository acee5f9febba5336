package milter

import (
	"encoding/binary"
	"slices"
	"strings"

	gomilter "github.com/emersion/go-milter"

	"sluice/policy"
)

// appendEdits appends the frames that change recipients and header fields, as far as the
// terms permit, and returns how many changes of fields were left out.
//
// Fields are replaced first, then deleted, of one name the last first, then inserted: in
// this order it makes no difference that Postfix doesn't count fields that have been
// deleted and Sendmail does, nor that inserted ones would be counted.
func appendEdits(b []byte, d *policy.Disposition, t terms) (_ []byte, skipped int) {
	for _, r := range d.RemoveRecipients {
		b = appendFrame(b, byte(gomilter.ActDelRcpt), "<", cleanAddress(r), ">\x00")
	}
	for _, r := range d.AddRecipients {
		b = appendFrame(b, byte(gomilter.ActAddRcpt), "<", cleanAddress(r), ">\x00")
	}
	var replaced, deleted, inserted []policy.FieldChange
	gone := make(map[string][]int)
	for _, f := range d.Fields {
		needs := gomilter.OptChangeHeader
		if f.Op == policy.InsertField {
			needs = gomilter.OptAddHeader
		}
		if t.actions&needs == 0 || !validName(f.Name) || f.Index < 0 || f.Op != policy.InsertField && f.Index == 0 {
			skipped++
			continue
		}
		switch f.Op {
		case policy.InsertField:
			inserted = append(inserted, f)
		case policy.ReplaceField:
			f.Index = onArrival(gone[strings.ToLower(f.Name)], f.Index)
			replaced = append(replaced, f)
		case policy.DeleteField:
			name := strings.ToLower(f.Name)
			f.Index = onArrival(gone[name], f.Index)
			at, _ := slices.BinarySearchFunc(gone[name], f.Index, func(have, want int) int { return want - have })
			gone[name] = slices.Insert(gone[name], at, f.Index)
			deleted = append(deleted, f)
		}
	}
	for _, f := range replaced {
		b = appendField(b, gomilter.ActChangeHeader, f.Index, f.Name, cleanValue(f.Value), t)
	}
	slices.SortStableFunc(deleted, func(a, b policy.FieldChange) int { return b.Index - a.Index })
	for _, f := range deleted {
		b = appendField(b, gomilter.ActChangeHeader, f.Index, f.Name, "", t)
	}
	for _, f := range inserted {
		b = appendField(b, gomilter.ActInsertHeader, f.Index, f.Name, cleanValue(f.Value), t)
	}
	return b, skipped
}

// onArrival turns the ordinal of a field among those that are left into its ordinal in the
// message as it came. gone are the ordinals that were deleted, descending.
func onArrival(gone []int, index int) int {
	for i := len(gone) - 1; i >= 0 && gone[i] <= index; i-- {
		index++
	}
	return index
}

// appendField appends one change. An empty value deletes. Where the MTA keeps the blank
// after the colon it is ours to write.
func appendField(b []byte, code gomilter.ModifyActCode, index int, name, value string, t terms) []byte {
	blank := ""
	if value != "" && t.steps&gomilter.OptHeaderLeadingSpace != 0 {
		blank = " "
	}
	var at [4]byte
	binary.BigEndian.PutUint32(at[:], uint32(index))
	return appendFrame(b, byte(code), string(at[:]), name, "\x00", blank, value, "\x00")
}

// cleanValue keeps a value from bringing lines of its own: folds are LF and a blank or tab,
// a bare line end becomes one, other controls vanish. An empty value, which would
// delete the field, becomes a blank.
func cleanValue(value string) string {
	var s strings.Builder
	s.Grow(len(value))
	for i := range len(value) {
		switch c := value[i]; {
		case c == '\n':
			s.WriteByte('\n')
			if i+1 == len(value) || value[i+1] != ' ' && value[i+1] != '\t' {
				s.WriteByte('\t')
			}
		case c == '\t' || c >= ' ' && c != 0x7f:
			s.WriteByte(c)
		}
	}
	if v := strings.TrimRight(s.String(), " \t\n"); v != "" {
		return v
	}
	return " "
}

// cleanAddress takes out what would end the frame's field, or a line.
func cleanAddress(a string) string {
	b := make([]byte, 0, len(a))
	for i := range len(a) {
		if a[i] >= ' ' && a[i] != 0x7f {
			b = append(b, a[i])
		}
	}
	return string(b)
}

// validName reports whether s can be a field's name (RFC 5322 §3.6.8).
func validName(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f || s[i] == ':' {
			return false
		}
	}
	return s != ""
}
