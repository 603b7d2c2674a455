# awk -v names='bookworm stable' -f backports.awk FILE...: from apt's sources (.sources in deb822, anything else one line each) those of the backports of
# these suites, in the format that they come in. Address, options and keys stay as they are; sources of others and of other components are left out.
BEGIN { split(names, list, " "); for (i in list) wanted[list[i]] = list[i] "-backports" }
FNR == 1 { flush_stanza(); deb822 = FILENAME ~ /\.sources$/ }

!deb822 && $1 == "deb" {
  # deb [ option=value ... ] ADDRESS SUITE COMPONENT...
  i = 2
  if ($i ~ /^\[/) { while (i < NF && $i !~ /\]$/) i++; i++ }
  suite = i + 1
  if (!($suite in wanted)) next
  for (main = suite + 1; main <= NF && $main != "main"; main++);
  if (main > NF) next
  line = $1
  for (i = 2; i < suite; i++) line = line " " $i
  print line, wanted[$suite], "main"
}

deb822 && /^[ \t]*$/ { flush_stanza(); next }
deb822 && /^#/ { next }
deb822 {
  if ($0 !~ /^[ \t]/) { colon = index($0, ":"); field = tolower(substr($0, 1, colon - 1)); value = substr($0, colon + 1) } else value = $0
  if (field == "types") types = types " " value
  else if (field == "suites") suites = suites " " value
  else if (field == "components") components = components " " value
  else { if (field == "enabled" && tolower(value) ~ /no|false|0|off/) disabled = 1; others = others $0 "\n" }
}
END { flush_stanza() }

function flush_stanza(   n, words, i, names, main) {
  n = split(suites, words)
  for (i = 1; i <= n; i++) if (words[i] in wanted) names = names " " wanted[words[i]]
  main = (" " components " ") ~ /[ \t]main[ \t]/
  if (names != "" && main && !disabled && (" " types " ") ~ /[ \t]deb[ \t]/) printf "Types: deb\nSuites:%s\nComponents: main\n%s\n", names, others
  types = suites = components = others = field = ""; disabled = 0
}
