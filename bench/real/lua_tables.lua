-- Trees that are thrown away, records with closures, sorting and building of strings.
local function tree(depth)
    if depth == 0 then return {} end
    return { tree(depth - 1), tree(depth - 1) }
end
local function count(node)
    if not node[1] then return 1 end
    return 1 + count(node[1]) + count(node[2])
end
local nodes = 0
for _ = 1, 24 do nodes = nodes + count(tree(14)) end
print(nodes)

local records, seed = {}, 1
for i = 1, 200000 do
    seed = (seed * 1103515245 + 12345) % 2147483648
    local value = seed
    records[i] = { id = i, name = "n" .. seed % 50021, get = function() return value end }
end
table.sort(records, function(a, b) if a.name ~= b.name then return a.name < b.name end return a.id < b.id end)
local parts, sum = {}, 0
for i, record in ipairs(records) do
    if i % 3 == 0 then parts[#parts + 1] = record.name:upper():rep(i % 4 + 1) end
    sum = sum + record.get() % 1009
end
print(#table.concat(parts, ","), sum)
