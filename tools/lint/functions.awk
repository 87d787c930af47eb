# One line per function definition: lines, file, line number, name; and one line per conditional directive:
# `#if`, file, line number, `inside` or `outside` a function. Relies on the format that `make format` makes: a
# definition starts in column 1, and its closing brace stands there too unless it is all on one line.
#   awk -f tools/lint/functions.awk src/*/*.[ch]
function report(lines) { print lines, FILENAME, start, name; open = 0; name = "" }
FNR == 1 { open = 0; name = ""; comment = 0 }
# Comments and strings hold no code.
{
    code = $0
    gsub(/"([^"\\]|\\.)*"/, "\"\"", code)
    if (comment) { if (!sub(/^.*\*\//, "", code)) next; comment = 0 }
    gsub(/\/\*([^*]|\*+[^*\/])*\*+\//, "", code)
    sub(/\/\/.*/, "", code)
    if (sub(/\/\*.*/, "", code)) comment = 1
    gsub(/(__attribute__|HAK_[A-Z_]+) *\(([^()]|\([^()]*\)|\(\([^()]*\)\))*\)/, "", code) # attributes
}
continued { continued = code ~ /\\$/; next }
code ~ /^[ \t]*#/ {
    if (code ~ /^[ \t]*#[ \t]*if/) print "#if", FILENAME, FNR, open ? "inside" : "outside"
    continued = code ~ /\\$/
    next
}
open { if (code ~ /^}/) report(FNR - start + 1); next }
code ~ /^[A-Za-z_].*\(/ && !name {
    start = FNR
    name = code
    sub(/ *\(.*/, "", name)
    sub(/.*[ *]/, "", name)
}
name && code ~ /;[ \t]*$/ && code !~ /{/ { name = ""; next }
name && code ~ /{.*}[ \t]*$/ { if (code ~ /\)[^=]*{/) report(FNR - start + 1); name = ""; next }
name && code ~ /{[ \t]*$/ { if (code ~ /=[ \t]*{/ || code ~ /^(struct|union|enum)[^()]*{/) name = ""; else open = 1 }
