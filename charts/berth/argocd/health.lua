-- Health of Tenant, Repository, RetentionPolicy and PullThroughCache (berth.dev) for Argo CD.
--
-- The order is that of kstatus, which Flux and Helm follow: deletion, generation, Reconciling, Stalled, Ready. Nothing
-- besides Lua's basic functions is used, since Argo CD opens no more for scripts of its configuration.

local function health(status, message)
  return { status = status, message = message }
end

local metadata = obj.metadata or {}
local status = obj.status or {}
local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end

local function is(aspect, value)
  return conditions[aspect] ~= nil and conditions[aspect].status == value
end

-- What a condition says, or its reason where it says nothing.
local function told(aspect, otherwise)
  local condition = conditions[aspect] or {}
  if condition.message ~= nil and condition.message ~= "" then
    return condition.message
  end
  return condition.reason or otherwise
end

if metadata.deletionTimestamp ~= nil then
  -- It may wait for somebody to confirm it.
  if is("Stalled", "True") then
    return health("Progressing", "Being deleted: " .. told("Stalled", ""))
  end
  return health("Progressing", "Being deleted")
end

-- The operator does not look at it, whatever its spec says.
if metadata.annotations ~= nil and metadata.annotations["berth.dev/paused"] ~= nil then
  return health("Suspended", "Paused by the annotation berth.dev/paused")
end

-- A status that was never written says generation -1.
if status.observedGeneration == nil or status.observedGeneration == -1 then
  return health("Progressing", "No operator has looked at it yet")
end
if status.observedGeneration ~= metadata.generation then
  return health("Progressing", "The operator has not seen the last change yet")
end

if is("Reconciling", "True") then
  return health("Progressing", told("Reconciling", "Work goes on"))
end
if is("Stalled", "True") then
  return health("Degraded", told("Stalled", "Somebody must change something"))
end
if is("Ready", "True") then
  -- A tenant with spec.suspend is as it is said to be. Suspended would make a sync in waves wait for ever.
  return health("Healthy", told("Ready", "Ready"))
end
return health("Progressing", told("Ready", "Not ready yet"))
