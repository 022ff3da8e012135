//! What the store knows of a month, and the tenants of which it knows nothing, as rows.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::Usage;
use crate::admin::Admin;
use crate::admin::collection::named;
use crate::admin::reports::PAGE;
use crate::lifecycle::metering::{gib_hours, write_month};
use crate::metadata::configuration::Usage as Counters;
use crate::metadata::lifecycle::{MonthQuery, MonthUsage};
use crate::metadata::{MetadataError, TenantId};
use crate::tenancy::Tenant;

/// A tenant's row; without the tenant if that is gone.
type Whole = (Option<Arc<Tenant>>, MonthUsage);

/// The rows of a month. Tenants are held in memory, as the configuration is; of their repositories a page is.
pub(super) struct Rows {
    admin: Admin,
    month: i64,
    with_repositories: bool,
    /// Tenants that are still to be told, by name.
    tenants: VecDeque<Whole>,
    /// The tenant whose repositories are being told, and the row id of the last one.
    current: Option<(Option<Arc<Tenant>>, TenantId, i64)>,
}

impl Rows {
    /// Of one tenant, or of all.
    pub(super) async fn open(
        admin: Admin,
        tenant: Option<Arc<Tenant>>,
        month: i64,
        with_repositories: bool,
    ) -> Result<Self, MetadataError> {
        let mut query = MonthQuery {
            month,
            tenant: tenant.as_ref().map(|tenant| tenant.id),
            repositories: false,
            after: (0, 0),
            limit: PAGE,
        };
        let mut live: HashMap<TenantId, Arc<Tenant>> = match tenant {
            Some(tenant) => HashMap::from([(tenant.id, tenant)]),
            None => admin
                .directory
                .now()
                .tenants()
                .map(|tenant| (tenant.id, tenant.clone()))
                .collect(),
        };
        let mut tenants: Vec<Whole> = Vec::with_capacity(live.len());
        loop {
            let rows = admin.keeper.store().month(query.clone()).await?;
            let Some(last) = rows.last() else { break };
            query.after = (last.tenant.0, last.repository_id);
            // What is gone is told for the months in which it was there.
            let whole = rows.into_iter().map(|row| (live.remove(&row.tenant), row));
            tenants.extend(whole.filter(|(tenant, row)| tenant.is_some() || row.byte_hours > 0));
        }
        tenants.extend(live.into_values().map(|tenant| {
            let row = nothing(&tenant);
            (Some(tenant), row)
        }));
        tenants.sort_by(|(_, a), (_, b)| a.tenant_name.cmp(&b.tenant_name));
        Ok(Self {
            admin,
            month,
            with_repositories,
            tenants: tenants.into(),
            current: None,
        })
    }

    /// Whether all is told.
    pub(super) fn is_ended(&self) -> bool {
        self.tenants.is_empty() && self.current.is_none()
    }

    /// The next rows, about a page of them.
    pub(super) async fn page(&mut self) -> Result<Vec<Usage>, MetadataError> {
        let mut page = Vec::new();
        while page.len() < PAGE as usize {
            if let Some((tenant, id, after)) = self.current.take() {
                self.repositories(tenant, id, after, &mut page).await?;
                continue;
            }
            let Some((tenant, row)) = self.tenants.pop_front() else {
                break;
            };
            if self.with_repositories && (row.byte_hours > 0 || row.usage.repositories > 0) {
                self.current = Some((tenant.clone(), row.tenant, 0));
            }
            page.push(self.usage(tenant.as_deref(), row));
        }
        Ok(page)
    }

    async fn repositories(
        &mut self,
        tenant: Option<Arc<Tenant>>,
        id: TenantId,
        after: i64,
        page: &mut Vec<Usage>,
    ) -> Result<(), MetadataError> {
        let query = MonthQuery {
            month: self.month,
            tenant: Some(id),
            repositories: true,
            after: (id.0, after),
            limit: PAGE,
        };
        let rows = self.admin.keeper.store().month(query).await?;
        let last = rows
            .last()
            .filter(|_| rows.len() == PAGE as usize)
            .map(|row| row.repository_id);
        let usages = rows.into_iter().map(|row| self.usage(tenant.as_deref(), row));
        page.extend(usages.filter(|usage| !usage.deleted || usage.byte_hours > 0));
        self.current = last.map(|last| (tenant, id, last));
        Ok(())
    }

    /// A row as it is told; `tenant` unless it is gone.
    fn usage(&self, tenant: Option<&Tenant>, row: MonthUsage) -> Usage {
        let billing = tenant.and_then(|tenant| tenant.config.billing.as_ref());
        let price = self.admin.keeper.price().of(billing);
        // A repository whose row is gone too is called by its number, in parentheses.
        let is_gone = |name: &str| name.contains(['~', '(']);
        Usage {
            deleted: tenant.is_none() || row.repository.as_deref().is_some_and(is_gone),
            tenant: named(&row.tenant_name).0.to_owned(),
            stored_bytes: row.repository.is_none().then_some(row.stored),
            repository: row.repository.map(|name| named(&name).0.to_owned()),
            bytes: row.usage.bytes,
            tags: row.usage.tags,
            repositories: row.usage.repositories,
            month: write_month(self.month),
            byte_hours: row.byte_hours,
            gib_hours: gib_hours(row.byte_hours),
            cost: price.cost(row.byte_hours),
            price: price.text(),
            currency: price.currency,
        }
    }
}

fn nothing(tenant: &Tenant) -> MonthUsage {
    MonthUsage {
        tenant: tenant.id,
        tenant_name: tenant.name.to_string(),
        repository_id: 0,
        repository: None,
        byte_hours: 0,
        usage: Counters::default(),
        stored: 0,
    }
}
